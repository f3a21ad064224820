"""Attention over a packed batch: every row attends to itself alone.

Registered with transformers as an attention implementation, so that any of its models that leave attention to an
interface can be packed. Beware of the implementations that come with it: BERT with `sdpa` takes packed rows and attends
across them, without a word.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from touchstone.packed.by_groups import Settings, attend
from touchstone.packed.by_runs import look
from touchstone.packed.layout import active

NAME = "touchstone_packed"


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
    settings = Settings(scale, dropout, causal, sliding_window)
    if torch.is_grad_enabled() or dropout > 0:
        grouping = layout.grouping(queries, keys, heads=query.shape[1])
        return attend(query, key, value, bias, grouping, settings), None
    return look(query, key, value, bias, layout.runs(queries, keys), settings), None


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


def _mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    """transformers asks for the mask to go with an attention implementation. Packed rows need none."""
    return None if active() is not None else sdpa_mask(*args, **kwargs)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _mask)
