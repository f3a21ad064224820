"""Attention group by group (see `grouping`), with its derivative: one node of the graph a layer, where single
operations would be some fifteen a group.

Tokens are moved once on the way in and once on the way out, from where the model has laid them and to where it wants
them: what a head makes of a token is a row, and groups are told by the numbers of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from touchstone.packed.dropout import MaskSource, drop, kept_scale
from touchstone.packed.grouping import LEAST, Group, Grouping

MASKS = MaskSource()
"""Draws the dropout of attention weights; the engine seeds it every step."""


@dataclass(frozen=True)
class Settings:
    """Attributes:
    scale: of the products of queries and keys.
    dropout: rate, of attention weights.
    causal: a query sees no key after it.
    window: a query sees keys less than this many tokens away.
    """

    scale: float
    dropout: float = 0.0
    causal: bool = False
    window: int | None = None

    def blocked(self, queries: int, keys: int, *, device: torch.device) -> torch.Tensor | None:
        """(queries, keys) float32: `LEAST` where a query must not see a key, else 0. None: it sees all of its row."""
        if not self.causal and self.window is None:
            return None
        distance = torch.arange(keys, device=device) - torch.arange(queries, device=device)[:, None]
        far = distance > 0 if self.causal else torch.zeros_like(distance, dtype=torch.bool)
        if self.window is not None:
            far = far | (distance.abs() >= self.window)
        return torch.zeros(far.shape, device=device).masked_fill_(far, LEAST)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    grouping: Grouping,
    settings: Settings,
) -> torch.Tensor:
    """(1, T_q, heads, d): softmax(scale * Q K^T + bias) V within each row.

    Args:
        query, key, value: (1, heads, T, d).
        bias: (1, heads, L, L) for the longest row; or more.
    """
    output: torch.Tensor = _Attend.apply(query, key, value, bias, grouping, settings)  # type: ignore[no-untyped-call]
    return output


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        grouping: Grouping,
        settings: Settings,
    ) -> torch.Tensor:
        heads, width = query.shape[1], value.shape[-1]
        query, key, value = (_by_head(x) for x in (query * settings.scale, key, value))
        output = value.new_empty(grouping.query_places, width)
        kept: list[torch.Tensor | None] = []
        for group, part in zip(grouping.groups, torch.split(output, grouping.queries_by_group), strict=True):
            q, k, v = _gathered(group, query, key, value, heads=heads)
            weights = _weights(q, k, group, heads=heads, bias=bias, settings=settings)
            mask, seen = None, weights.to(v.dtype)
            if settings.dropout:
                mask = MASKS.draw(seen.shape, rate=settings.dropout, dtype=v.dtype, device=v.device)
                seen = drop(seen, mask)
            torch.bmm(seen, v, out=part.view(len(q), -1, width))
            kept += [q, k, v, weights, seen, mask]
        if settings.dropout:  # kept weights are scaled when they are summed up: fewer numbers
            output *= kept_scale(settings.dropout)
        ctx.save_for_backward(*kept)
        ctx.grouping, ctx.settings = grouping, settings
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)
        return output.index_select(0, grouping.query_place).view(1, -1, heads, width)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        settings: Settings = ctx.settings
        grouping: Grouping = ctx.grouping
        heads, width, dtype = gradient.shape[2], gradient.shape[3], gradient.dtype
        gradient = _with_nothing(gradient.reshape(-1, width), scale=kept_scale(settings.dropout))
        bias = None if ctx.bias is None else gradient.new_zeros(ctx.bias[0], dtype=torch.float32)
        d_query = gradient.new_empty(grouping.query_places, width)
        d_key, d_value = (gradient.new_empty(grouping.key_places, width) for _ in range(2))
        parts = zip(
            torch.split(d_query, grouping.queries_by_group),
            torch.split(d_key, grouping.keys_by_group),
            torch.split(d_value, grouping.keys_by_group),
            strict=True,
        )
        saved = ctx.saved_tensors
        for number, (group, (of_q, of_k, of_v)) in enumerate(zip(grouping.groups, parts, strict=True)):
            q, k, v, weights, seen, mask = saved[6 * number : 6 * number + 6]
            d_output = gradient.index_select(0, group.gradient_index).view(len(q), -1, width)
            torch.bmm(seen.transpose(1, 2), d_output, out=of_v.view(v.shape))
            d_weights = torch.bmm(d_output, v.transpose(1, 2))
            if mask is not None:
                d_weights = drop(d_weights, mask)
            d_scores = torch._softmax_backward_data(d_weights.float(), weights, -1, torch.float32)
            if bias is not None:
                by_head = torch.unflatten(d_scores, 0, (-1, heads))
                bias[0, :, : group.queries, : group.keys] += by_head.sum(0)[:, : bias.shape[2], : bias.shape[3]]
            d_scores = d_scores.to(dtype)
            torch.bmm(d_scores, k, out=of_q.view(q.shape))
            torch.bmm(d_scores.transpose(1, 2), q, out=of_k.view(k.shape))
        d_query *= settings.scale
        places = (grouping.query_place, grouping.key_place, grouping.key_place)
        found = (
            part.index_select(0, place).view(1, -1, heads, width).transpose(1, 2)
            for part, place in zip((d_query, d_key, d_value), places, strict=True)
        )
        return (*found, None if bias is None else bias.to(ctx.bias[1]), None, None)


def _by_head(tokens: torch.Tensor) -> torch.Tensor:
    """(T * heads, d) of (1, heads, T, d): a view, as models lay tokens out."""
    return tokens[0].transpose(0, 1).reshape(-1, tokens.shape[-1])


def _with_nothing(rows: torch.Tensor, *, scale: float) -> torch.Tensor:
    """(N + 1, d) of (N, d): scaled, and after the last a row of zeros, for places that are padding."""
    scaled = rows.new_empty(len(rows) + 1, rows.shape[1])
    torch.mul(rows, scale, out=scaled[:-1])
    scaled[-1] = 0.0
    return scaled


def _gathered(
    group: Group, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(b * heads, L, d) of (T * heads, d)."""
    q, k, v = (
        tokens.index_select(0, index).view(group.rows * heads, -1, tokens.shape[-1])
        for tokens, index in ((query, group.query_index), (key, group.key_index), (value, group.key_index))
    )
    return q, k, v


def _weights(
    q: torch.Tensor, k: torch.Tensor, group: Group, *, heads: int, bias: torch.Tensor | None, settings: Settings
) -> torch.Tensor:
    """(b * heads, queries, keys) float32. Softmax in float32, whatever comes in: more exact, and on a CPU faster than
    in bfloat16."""
    scores = torch.bmm(q, k.transpose(1, 2)).float()
    by_head = torch.unflatten(scores, 0, (-1, heads))
    if bias is not None:  # padding has none
        by_head[:, :, : bias.shape[2], : bias.shape[3]] += bias[:, :, : group.queries, : group.keys]
    blocked, hidden = settings.blocked(group.queries, group.keys, device=q.device), group.hidden
    if settings.causal:  # a row's own padding comes after all that it may see
        hidden = None
    if blocked is not None and hidden is not None:  # not their sum, which is beyond float32
        by_head += torch.minimum(blocked, hidden)
    elif blocked is not None:
        by_head += blocked
    elif hidden is not None:
        by_head += hidden
    weights = torch.softmax(scores, -1)
    if group.blind and group.hidden is not None:
        # Who sees nothing learns nothing: without this, the mean of some other row.
        weights.view(by_head.shape).masked_fill_(group.hidden < 0, 0.0)
    return weights
