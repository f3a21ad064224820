"""Attention over a packed batch: every row attends only to itself.

It is registered with transformers as an attention implementation, so it works for every model that calls attention
through that interface. transformers' own `sdpa` must not be used on packed rows: with it BERT attends across rows, and
raises no error.

On a GPU in half precision FlashAttention takes the rows' offsets. Everywhere else rows are computed by groups in
training, and by blocks without a gradient (see `layout`). In this module queries, keys and values are (1, heads, T, d)
over the T tokens of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from touchstone.packed.layout import MASKED_SCORE, Group, Grouping, RowBlock, current_layout
from touchstone.packed.modules import DROPOUT_MASKS, apply_mask, kept_scale

NAME = "touchstone_packed"


@dataclass(frozen=True)
class AttentionSettings:
    """The settings of one attention layer.

    Attributes:
        scale: factor of the products of queries and keys.
        dropout: rate at which attention weights are dropped.
        causal: a query sees no later key.
        window: a query sees only keys less than this many tokens away.
    """

    scale: float
    dropout: float = 0.0
    causal: bool = False
    window: int | None = None

    def mask(self, queries: int, keys: int, *, device: torch.device) -> torch.Tensor | None:
        """Return (queries, keys) float32: `MASKED_SCORE` where a query must not see a key, else 0. None: it sees all
        keys of its row."""
        if not self.causal and self.window is None:
            return None
        distance = torch.arange(keys, device=device) - torch.arange(queries, device=device)[:, None]
        masked = distance > 0 if self.causal else torch.zeros_like(distance, dtype=torch.bool)
        if self.window is not None:
            masked = masked | (distance.abs() >= self.window)
        return torch.zeros(masked.shape, device=device).masked_fill_(masked, MASKED_SCORE)


# The interface to transformers ----------------------------------------------------------------------------------------


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
    """Compute one attention layer; transformers calls this. Without a current layout it is plain `sdpa`.

    Args:
        query, key, value: (1, heads, T, d); keys and values may have fewer heads, each shared by several query heads.
        position_bias: (1, heads, L, L) for the longest row (T5's relative positions).
        sliding_window: a query sees only keys less than this many tokens away.

    Returns:
        (1, T, heads, d), and None in place of the weights, which are not kept.
    """
    layout = current_layout()
    if layout is None:
        given = {"position_bias": position_bias, "sliding_window": sliding_window}
        kwargs |= {name: value for name, value in given.items() if value is not None}
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    causal = bool(getattr(module, "is_causal", False))
    in_decoder = layout.target is not None and bool(getattr(module, "is_decoder", False))
    queries = layout.target if in_decoder and layout.target is not None else layout.source
    keys = queries if causal or not in_decoder else layout.source
    if key.shape[1] != query.shape[1]:
        key, value = (x.repeat_interleave(query.shape[1] // key.shape[1], 1) for x in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if _has_flash_attention(query) and position_bias is None and sliding_window is None:
        bounds = (*queries.bounds, *keys.bounds)
        return _flash_attention(query, key, value, bounds, dropout=dropout, causal=causal, scale=scale), None
    bias = position_bias if keys is queries else None  # T5 passes a bias of zeros to its cross-attention
    settings = AttentionSettings(scale, dropout, causal, sliding_window)
    if torch.is_grad_enabled() or dropout > 0:
        grouping = layout.grouping(queries, keys, heads=query.shape[1])
        return attend_train(query, key, value, bias, grouping, settings), None
    return attend_eval(query, key, value, bias, layout.blocks(queries, keys), settings), None


def _no_mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    """Return the mask that transformers passes to attention: None for packed rows, which need none."""
    return None if current_layout() is not None else sdpa_mask(*args, **kwargs)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _no_mask)


def _has_flash_attention(query: torch.Tensor) -> bool:
    """Check whether torch's kernel for packed rows (FlashAttention 2) supports these queries."""
    width = query.shape[-1]
    return (
        query.is_cuda
        and torch.backends.cuda.is_flash_attention_available()  # not in every build
        and query.dtype in (torch.bfloat16, torch.float16)
        and width % 8 == 0
        and width <= 256
    )


def _flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: tuple[torch.Tensor, int, torch.Tensor, int],
    *,
    dropout: float,
    causal: bool,
    scale: float,
) -> torch.Tensor:
    """Call the operator behind `scaled_dot_product_attention` directly: the public `torch.nn.attention.varlen` has no
    dropout."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, heads, d)
    query_offsets, longest_query, key_offsets, longest_key = bounds
    output: torch.Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, query_offsets, key_offsets, longest_query, longest_key, dropout, causal, False, scale=scale
    )[0]
    return output[None]


# Without a gradient: by blocks ----------------------------------------------------------------------------------------


@torch.no_grad()
def attend_eval(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    blocks: Sequence[RowBlock],
    settings: AttentionSettings,
) -> torch.Tensor:
    """Compute what `attend_train` does, without dropout or gradient.

    Rows of one block are already an unpadded batch. torch's own kernel takes them in place, in one call, and keeps no
    scores. (It has no dropout on a CPU, so training cannot use it.) Evaluation takes the longest examples first, which
    makes blocks large.

    Args:
        query, key, value: (1, heads, T, d).
        bias: (1, heads, L, L) for the longest row, or larger.

    Returns:
        (1, T_q, heads, d).
    """
    unmasked = bias is None and settings.window is None
    # With float64 inputs the kernel reads a float32 mask as if it were float64, and raises no error.
    dtype = torch.promote_types(query.dtype, torch.float32)
    outputs = []
    queries = torch.split(query[0], [block.rows * block.queries for block in blocks], dim=1)
    keys, values = (torch.split(x[0], [block.rows * block.keys for block in blocks], dim=1) for x in (key, value))
    for block, *tokens in zip(blocks, queries, keys, values, strict=True):
        q, k, v = (_split_rows(x, block.rows) for x in tokens)
        mask = None if unmasked else _block_mask(block, bias, settings, device=query.device, dtype=dtype)
        causal = settings.causal and unmasked
        output = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=settings.scale)
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[None]


def _split_rows(tokens: torch.Tensor, rows: int) -> torch.Tensor:
    """View (heads, b * L, d) as (b, heads, L, d)."""
    return torch.unflatten(tokens, 1, (rows, -1)).transpose(0, 1)


def _block_mask(
    block: RowBlock,
    bias: torch.Tensor | None,
    settings: AttentionSettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor | None:
    """Return what is added to the scores: (queries, keys) or (1, heads, queries, keys), in `dtype`."""
    mask = settings.mask(block.queries, block.keys, device=device)
    if bias is None:
        return mask if mask is None else mask.to(dtype)
    block_bias = bias[:, :, : block.queries, : block.keys].to(dtype)
    return block_bias if mask is None else block_bias + mask


# Training: by groups --------------------------------------------------------------------------------------------------


def attend_train(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    grouping: Grouping,
    settings: AttentionSettings,
) -> torch.Tensor:
    """Compute softmax(scale * Q K^T + bias) V within each row, with dropout and gradient.

    Args:
        query, key, value: (1, heads, T, d).
        bias: (1, heads, L, L) for the longest row, or larger.

    Returns:
        (1, T_q, heads, d).
    """
    output: torch.Tensor = _AttendTrain.apply(query, key, value, bias, grouping, settings)  # type: ignore[no-untyped-call]
    return output


class _AttendTrain(torch.autograd.Function):
    """One autograd node per layer, where single operations would be some fifteen per group.

    Each head's part of a token is one line of (T * heads, d). Lines are copied to their groups once and back once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        grouping: Grouping,
        settings: AttentionSettings,
    ) -> torch.Tensor:
        heads, width = query.shape[1], value.shape[-1]
        query, key, value = (_lines(x) for x in (query * settings.scale, key, value))
        output = value.new_empty(sum(grouping.query_sizes), width)
        saved: list[torch.Tensor | None] = []
        for group, part in zip(grouping.groups, torch.split(output, grouping.query_sizes), strict=True):
            q, k, v = _gather(group, query, key, value, heads=heads)
            weights = _softmax_weights(q, k, group, heads=heads, bias=bias, settings=settings)
            mask, used = None, weights.to(v.dtype)
            if settings.dropout:
                mask = DROPOUT_MASKS.draw(used.shape, rate=settings.dropout, dtype=v.dtype, device=v.device)
                used = apply_mask(used, mask)
            torch.bmm(used, v, out=part.view(len(q), -1, width))
            saved += [q, k, v, weights, used, mask]
        if settings.dropout:  # scale the kept weights here, after the sums: fewer numbers
            output *= kept_scale(settings.dropout)
        ctx.save_for_backward(*saved)
        ctx.grouping, ctx.settings = grouping, settings
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)
        return output.index_select(0, grouping.query_slots).view(1, -1, heads, width)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        settings: AttentionSettings = ctx.settings
        grouping: Grouping = ctx.grouping
        heads, width, dtype = gradient.shape[2], gradient.shape[3], gradient.dtype
        gradient = _append_zero_line(gradient.reshape(-1, width), scale=kept_scale(settings.dropout))
        d_bias = None if ctx.bias is None else gradient.new_zeros(ctx.bias[0], dtype=torch.float32)
        d_query = gradient.new_empty(sum(grouping.query_sizes), width)
        d_key, d_value = (gradient.new_empty(sum(grouping.key_sizes), width) for _ in range(2))
        parts = zip(
            torch.split(d_query, grouping.query_sizes),
            torch.split(d_key, grouping.key_sizes),
            torch.split(d_value, grouping.key_sizes),
            strict=True,
        )
        saved = ctx.saved_tensors
        for number, (group, (d_q, d_k, d_v)) in enumerate(zip(grouping.groups, parts, strict=True)):
            q, k, v, weights, used, mask = saved[6 * number : 6 * number + 6]
            d_output = gradient.index_select(0, group.gradient_index).view(len(q), -1, width)
            torch.bmm(used.transpose(1, 2), d_output, out=d_v.view(v.shape))
            d_weights = torch.bmm(d_output, v.transpose(1, 2))
            if mask is not None:
                d_weights = apply_mask(d_weights, mask)
            d_scores = torch._softmax_backward_data(d_weights.float(), weights, -1, torch.float32)
            if d_bias is not None:
                by_head = torch.unflatten(d_scores, 0, (-1, heads))
                d_bias[0, :, : group.queries, : group.keys] += by_head.sum(0)[:, : d_bias.shape[2], : d_bias.shape[3]]
            d_scores = d_scores.to(dtype)
            torch.bmm(d_scores, k, out=d_q.view(q.shape))
            torch.bmm(d_scores.transpose(1, 2), q, out=d_k.view(k.shape))
        d_query *= settings.scale
        slots = (grouping.query_slots, grouping.key_slots, grouping.key_slots)
        gradients = (
            part.index_select(0, slot).view(1, -1, heads, width).transpose(1, 2)
            for part, slot in zip((d_query, d_key, d_value), slots, strict=True)
        )
        return (*gradients, None if d_bias is None else d_bias.to(ctx.bias[1]), None, None)


def _lines(tokens: torch.Tensor) -> torch.Tensor:
    """Turn (1, heads, T, d) into (T * heads, d); a view, as models lay tokens out."""
    return tokens[0].transpose(0, 1).reshape(-1, tokens.shape[-1])


def _append_zero_line(lines: torch.Tensor, *, scale: float) -> torch.Tensor:
    """Scale (N, d), and append a line of zeros: the gradient of padded slots."""
    scaled = lines.new_empty(len(lines) + 1, lines.shape[1])
    torch.mul(lines, scale, out=scaled[:-1])
    scaled[-1] = 0.0
    return scaled


def _gather(
    group: Group, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Copy a group's lines out of (T * heads, d) into (b * heads, L, d)."""
    q, k, v = (
        lines.index_select(0, index).view(group.rows * heads, -1, lines.shape[-1])
        for lines, index in ((query, group.query_index), (key, group.key_index), (value, group.key_index))
    )
    return q, k, v


def _softmax_weights(
    q: torch.Tensor,
    k: torch.Tensor,
    group: Group,
    *,
    heads: int,
    bias: torch.Tensor | None,
    settings: AttentionSettings,
) -> torch.Tensor:
    """Compute the weights of a group, (b * heads, queries, keys) float32, before dropout.

    Softmax is in float32 for every input type: it is more exact, and on a CPU faster than in bfloat16.
    """
    scores = torch.bmm(q, k.transpose(1, 2)).float()
    by_head = torch.unflatten(scores, 0, (-1, heads))
    if bias is not None:  # it does not cover padding
        by_head[:, :, : bias.shape[2], : bias.shape[3]] += bias[:, :, : group.queries, : group.keys]
    mask, key_mask = settings.mask(group.queries, group.keys, device=q.device), group.key_mask
    if settings.causal:  # a row's padding comes after its last token, so the causal mask covers it
        key_mask = None
    if mask is not None and key_mask is not None:  # the minimum, because the sum would overflow float32
        by_head += torch.minimum(mask, key_mask)
    elif mask is not None:
        by_head += mask
    elif key_mask is not None:
        by_head += key_mask
    weights = torch.softmax(scores, -1)
    if group.some_without_keys and group.key_mask is not None:
        # A query with no visible key must output zero; softmax over all-masked scores would average the values of an
        # unrelated row.
        weights.view(by_head.shape).masked_fill_(group.key_mask < 0, 0.0)
    return weights
