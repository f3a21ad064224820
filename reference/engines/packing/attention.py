"""Attention over a packed batch: every row attends to itself alone.

Registered with transformers as an attention implementation, so that any of its models that leave attention to an
interface can be packed. Beware of the implementations that come with it: BERT with `sdpa` takes packed rows and attends
across them, without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from reference.engines.packing.dropout import MaskSource, drop, kept_scale
from reference.engines.packing.layout import Group, Grouping, active

NAME = "touchstone_packed"
CACHED = 2**20
"""Scores that are computed together where no gradient is wanted: 4 MiB in float32."""
LEAST = torch.finfo(torch.float32).min
"""Not minus infinity: a padded query may see no key at all, and the mean of nothing is no number."""
MASKS = MaskSource()
"""Draws the dropout of attention weights; the engine seeds it every step."""


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every attention layer; plain `sdpa` while no packed batch is on its way.

    Args:
        query, key, value: (1, heads, T, d) of all rows; keys and values may have fewer heads, each for several queries.
        position_bias: (1, heads, L, L) for the longest row (T5's relative positions).
        sliding_window: a query sees keys less than this many tokens away.

    Returns:
        (1, T, heads, d), and None for the weights, which are never kept.
    """
    layout = active()
    if layout is None:
        given = {"position_bias": position_bias, "sliding_window": sliding_window}
        kwargs |= {name: value for name, value in given.items() if value is not None}
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    causal = bool(getattr(module, "is_causal", False))
    decodes = layout.target is not None and bool(getattr(module, "is_decoder", False))
    queries = layout.target if decodes and layout.target is not None else layout.source
    keys = queries if causal or not decodes else layout.source
    if key.shape[1] != query.shape[1]:
        key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], 1) for x in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if _has_kernel(query) and position_bias is None and sliding_window is None:
        ends = (*queries.bounds, *keys.bounds)
        return _by_kernel(query, key, value, ends, dropout=dropout, causal=causal, scale=scale), None
    bias = position_bias if keys is queries else None  # T5 gives its attention from decoder to encoder one of zeros
    settings = _Settings(scale, dropout, causal, sliding_window)
    learns = torch.is_grad_enabled() or dropout > 0
    grouping = layout.grouping(queries, keys, learns=learns)
    if not learns:
        return _look(query, key, value, bias, grouping, settings), None
    output = _Attend.apply(query, key, value, bias, grouping, settings)  # type: ignore[no-untyped-call]
    return output.transpose(1, 2), None


def _has_kernel(query: torch.Tensor) -> bool:
    """Whether torch brings a kernel for packed rows (FlashAttention 2) that takes these."""
    width = query.shape[-1]
    return (
        query.is_cuda
        and torch.backends.cuda.is_flash_attention_available()  # not in every build
        and query.dtype in (torch.bfloat16, torch.float16)
        and width % 8 == 0
        and width <= 256
    )


def _by_kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: tuple[torch.Tensor, int, torch.Tensor, int],
    *,
    dropout: float,
    causal: bool,
    scale: float,
) -> torch.Tensor:
    """The operator beneath `scaled_dot_product_attention`. `torch.nn.attention.varlen` calls it too, but without
    dropout."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, heads, d)
    query_ends, longest_query, key_ends, longest_key = ends
    output: torch.Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, query_ends, key_ends, longest_query, longest_key, dropout, causal, False, scale=scale
    )[0]
    return output[None]


@dataclass(frozen=True)
class _Settings:
    scale: float
    dropout: float
    causal: bool
    window: int | None


def _look(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    grouping: Grouping,
    settings: _Settings,
) -> torch.Tensor:
    """(1, T, heads, d): what `_Attend` computes, where nobody will ask for a gradient. Nothing is kept; a CPU
    takes few rows at a time, whose scores stay in a cache; and tokens are moved with all their heads at once.
    """
    heads, width, dtype = query.shape[1], value.shape[-1], query.dtype
    query, key, value = (x[0].transpose(0, 1) for x in (query * settings.scale, key, value))  # (T, heads, d)
    places = sum(group.rows * group.queries for group in grouping.groups)
    output, done = value.new_empty(places, heads, width), 0
    for group in grouping.groups:
        q = _rows(query, group.query_index, shape=(group.rows, group.queries))
        k, v = (_rows(x, group.key_index, shape=(group.rows, group.keys)) for x in (key, value))
        blocked = _blocked(group, settings, device=query.device)
        if blocked is not None:
            blocked = blocked.expand(group.rows, -1, -1)[:, None]
        together = max(CACHED // (heads * group.queries * max(group.keys, 1)), 1)
        if query.device.type != "cpu":
            together = group.rows
        for start in range(0, group.rows, together):
            some = slice(start, start + together)
            rows = len(q[some])
            scores = torch.bmm(q[some].flatten(0, 1), k[some].flatten(0, 1).transpose(1, 2)).float()
            scores = scores.view(rows, heads, group.queries, group.keys)
            if bias is not None:
                scores += bias[:, :, : group.queries, : group.keys]
            if blocked is not None:
                scores.masked_fill_(blocked[some], LEAST)
            weights = torch.softmax(scores, -1)
            if group.blind and group.hidden is not None:
                weights.masked_fill_(group.hidden[some, None], 0.0)
            seen = torch.bmm(weights.to(dtype).flatten(0, 1), v[some].flatten(0, 1))
            end = done + rows * group.queries
            output[done:end].view(rows, -1, heads, width).copy_(seen.view(rows, heads, -1, width).transpose(1, 2))
            done = end
    return (output if grouping.query_place is None else output.index_select(0, grouping.query_place))[None]


def _rows(tokens: torch.Tensor, index: torch.Tensor | slice, *, shape: tuple[int, int]) -> torch.Tensor:
    """(rows, heads, L, d) of (T, heads, d): the group's tokens, by row."""
    chosen = tokens[index] if isinstance(index, slice) else tokens.index_select(0, index)
    return chosen.view(*shape, *tokens.shape[1:]).transpose(1, 2)


class _Attend(torch.autograd.Function):
    """softmax(scale * Q K^T + bias) V within each group, with its derivative: one node of the graph a layer where
    single operations would be some fifteen a group."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        grouping: Grouping,
        settings: _Settings,
    ) -> torch.Tensor:
        heads, width, dtype = query.shape[1], query.shape[-1], query.dtype
        query = query[0] * settings.scale
        query, key, value = (x.contiguous() for x in (query, key[0], value[0]))  # (heads, T, d)
        kept: list[torch.Tensor | None] = []
        outputs = []
        for group in grouping.groups:
            q = _gather(query, group.query_index, rows=group.rows)
            k, v = (_gather(x, group.key_index, rows=group.rows) for x in (key, value))
            # Softmax in float32, whatever comes in: more exact, and faster than in bfloat16 on a CPU.
            scores = torch.bmm(q, k.transpose(1, 2)).float()  # (heads * rows, queries, keys)
            scores = scores.view(heads, group.rows, group.queries, group.keys)
            if bias is not None:
                scores += bias[0, :, None, : group.queries, : group.keys]
            blocked = _blocked(group, settings, device=query.device)
            if blocked is not None:
                scores.masked_fill_(blocked, LEAST)
            weights = torch.softmax(scores, -1)
            if group.blind and group.hidden is not None:
                # Who sees nothing learns nothing: without this, the mean of some other row.
                weights.masked_fill_(group.hidden, 0.0)
            weights = weights.flatten(0, 1)
            mask, seen = None, weights.to(dtype)
            if settings.dropout:
                mask = MASKS.draw(seen.shape, rate=settings.dropout, dtype=dtype, device=seen.device)
                seen = drop(seen, mask)
            output = torch.bmm(seen, v)
            if settings.dropout:  # kept weights are scaled when they are summed up: fewer numbers
                output *= kept_scale(settings.dropout)
            outputs.append(output.view(heads, -1, width))
            kept += [q, k, v, weights, seen, mask]
        ctx.save_for_backward(*kept)
        ctx.grouping, ctx.settings = grouping, settings
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)
        return _restore(outputs, grouping.query_place)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        settings: _Settings = ctx.settings
        heads, width, dtype = gradient.shape[1], gradient.shape[-1], gradient.dtype
        gradient = gradient[0].contiguous()
        parts: tuple[list[torch.Tensor], ...] = ([], [], [])
        bias = None if ctx.bias is None else gradient.new_zeros(ctx.bias[0], dtype=torch.float32)
        saved = ctx.saved_tensors
        for number, group in enumerate(ctx.grouping.groups):
            q, k, v, weights, seen, mask = saved[6 * number : 6 * number + 6]
            d_output = _gather(gradient, group.query_index, rows=group.rows)
            if group.unasked is not None:  # a padded place was given some token's gradient
                d_output = d_output.view(heads, group.rows, group.queries, width).masked_fill(group.unasked, 0.0)
                d_output = d_output.flatten(0, 1)
            if settings.dropout:
                d_output = d_output * kept_scale(settings.dropout)
            d_value = torch.bmm(seen.transpose(1, 2), d_output)
            d_weights = torch.bmm(d_output, v.transpose(1, 2))
            if mask is not None:
                d_weights = drop(d_weights, mask)
            d_scores = torch._softmax_backward_data(d_weights.float(), weights, -1, torch.float32)
            if bias is not None:
                by_head = d_scores.view(heads, group.rows, group.queries, group.keys)
                bias[0, :, : group.queries, : group.keys] += by_head.sum(1)
            d_scores = d_scores.to(dtype)
            d_query = torch.bmm(d_scores, k).mul_(settings.scale)
            d_key = torch.bmm(d_scores.transpose(1, 2), q)
            for part, found in zip(parts, (d_query, d_key, d_value), strict=True):
                part.append(found.view(heads, -1, width))
        grouping: Grouping = ctx.grouping
        places = (grouping.query_place, grouping.key_place, grouping.key_place)
        restored = [_restore(part, place) for part, place in zip(parts, places, strict=True)]
        return (*restored, None if bias is None else bias.to(ctx.bias[1]), None, None)


def _gather(tokens: torch.Tensor, index: torch.Tensor | slice, *, rows: int) -> torch.Tensor:
    """(heads * rows, L, d) of (heads, T, d): the group's tokens, by head."""
    chosen = tokens[:, index] if isinstance(index, slice) else tokens.index_select(1, index)  # (heads, rows * L, d)
    return chosen.reshape(tokens.shape[0] * rows, -1, tokens.shape[-1])


def _restore(parts: list[torch.Tensor], place: torch.Tensor | None) -> torch.Tensor:
    """(1, heads, T, d): the groups' tokens in the order of the batch."""
    joined = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return (joined if place is None else joined.index_select(1, place))[None]


def _blocked(group: Group, settings: _Settings, *, device: torch.device) -> torch.Tensor | None:
    """True where a query must not see a key; broadcasts to (heads, rows, queries, keys)."""
    blocked = group.hidden
    if settings.causal or settings.window is not None:
        distance = torch.arange(group.keys, device=device) - torch.arange(group.queries, device=device)[:, None]
        if settings.causal:  # a row's own padding comes after all that it may see
            blocked = distance > 0
        if settings.window is not None:
            far = distance.abs() >= settings.window
            blocked = far if blocked is None else blocked | far
    return blocked


def _mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    """transformers asks for the mask to go with an attention implementation. Packed rows need none."""
    return None if active() is not None else sdpa_mask(*args, **kwargs)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _mask)
