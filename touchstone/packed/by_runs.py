"""Attention without a gradient: rows of one length that lie side by side are attended to as they lie.

torch's own kernel takes them in one call, keeps no scores, and has neither padding nor a copy to make. It knows no
dropout on a CPU: training goes `by_groups`. Evaluation takes the longest examples first, so that runs are long.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import scaled_dot_product_attention

from touchstone.packed.by_groups import Settings
from touchstone.packed.grouping import Run


@torch.no_grad()
def look(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    runs: Sequence[Run],
    settings: Settings,
) -> torch.Tensor:
    """What `by_groups.attend` gives, at dropout 0 and without a derivative.

    Args:
        query, key, value: (1, heads, T, d) of all rows.
        bias: (1, heads, L, L) for the longest row; or more.

    Returns:
        (1, T_q, heads, d).
    """
    whole = bias is None and settings.window is None
    # To float64 the kernel reads a float32 mask as if it were float64, without a word.
    dtype = torch.promote_types(query.dtype, torch.float32)
    parts = []
    queries = torch.split(query[0], [run.rows * run.queries for run in runs], dim=1)
    keys, values = (torch.split(x[0], [run.rows * run.keys for run in runs], dim=1) for x in (key, value))
    for run, *own in zip(runs, queries, keys, values, strict=True):
        q, k, v = (_by_row(tokens, run.rows) for tokens in own)
        mask = None if whole else _mask(run, bias, settings, device=query.device, dtype=dtype)
        causal = settings.causal and whole
        seen = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=settings.scale)
        parts.append(seen.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)[None]


def _by_row(tokens: torch.Tensor, rows: int) -> torch.Tensor:
    """(b, heads, L, d) of (heads, b * L, d): a view."""
    return torch.unflatten(tokens, 1, (rows, -1)).transpose(0, 1)


def _mask(
    run: Run, bias: torch.Tensor | None, settings: Settings, *, device: torch.device, dtype: torch.dtype
) -> torch.Tensor | None:
    """What is added to scores: (queries, keys) or (1, heads, queries, keys), in `dtype`."""
    blocked = settings.blocked(run.queries, run.keys, device=device)
    if bias is None:
        return blocked if blocked is None else blocked.to(dtype)
    own = bias[:, :, : run.queries, : run.keys].to(dtype)
    return own if blocked is None else own + blocked
