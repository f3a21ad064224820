"""A decoder that writes B rows token by token, G of them (the beams) side by side for each source.

Keys and values of the source are computed once and stand once a source, whatever the beams. Those of the tokens
written so far go into a tensor made for all steps in advance. When beams change places nothing in it moves: a mask says
which of the keys of its source's beams are a beam's own past.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from touchstone.packed.layout import Segments
from touchstone.packed.writing.families import Attention, Family


def has_kernel(device: torch.device) -> bool:
    """Whether torch's attention is fast for single queries. On a CPU it is made for many: there the plain products are
    faster, and these in float32, which is also more exact."""
    return device.type != "cpu"


@dataclass
class _Layer:
    """A layer and what it remembers.

    Attributes:
        weight, bias: of query, key and value in one.
        own: (2, B, heads, steps * G, d) keys and values of what is written.
        source: (2, B, heads, S, d) of the sources.
    """

    module: Any
    to_own: Attention
    to_source: Attention
    weight: torch.Tensor
    bias: torch.Tensor | None
    own: torch.Tensor
    source: torch.Tensor


class Decoder:
    """Args:
    family: of the model.
    encoded: (1, T, H) what the encoder made of the real tokens of B sources, one after the other.
    source: of which source each of the T tokens is.
    beams: G.
    steps: tokens written at most.
    """

    def __init__(self, family: Family, *, encoded: torch.Tensor, source: Segments, beams: int, steps: int) -> None:
        self._family, self._beams = family, beams
        self._has_kernel = has_kernel(encoded.device)
        self._dtype = encoded.dtype if self._has_kernel else torch.promote_types(encoded.dtype, torch.float32)
        # Added where a query must not see a key. Not minus infinity: of a source without tokens it would see nothing.
        least = torch.finfo(self._dtype).min
        rows = len(source.lengths)
        self._layers = []
        for module in family.layers:
            own, other = family.attentions(module)
            width = own.key.out_features // own.heads
            kept = encoded.new_empty((2, rows, own.heads, steps * beams, width), dtype=self._dtype)
            projections = (own.query, own.key, own.value)
            weights: list[torch.Tensor] = [each.weight for each in projections]
            biases: list[torch.Tensor] = [each.bias for each in projections if each.bias is not None]
            self._layers.append(
                _Layer(
                    module,
                    own,
                    other,
                    torch.cat(weights),
                    torch.cat(biases) if biases else None,
                    kept,
                    self._of_source(encoded, source, other),
                )
            )
        self._hidden: torch.Tensor | None = None
        if source.padded:
            mask = torch.from_numpy(source.mask).to(encoded.device)
            self._hidden = torch.zeros(mask.shape, dtype=self._dtype, device=mask.device).masked_fill_(~mask, least)
            self._hidden = self._hidden[:, None, None]  # (B, 1, 1, S)
        bias = family.bias(steps)
        self._bias = None if bias is None else bias.to(self._dtype).repeat_interleave(beams, -1)  # (heads, steps, *)
        self._past: torch.Tensor | None = None
        if beams > 1:
            past = torch.full((beams, steps, beams), least, dtype=self._dtype, device=encoded.device)
            past.diagonal(dim1=0, dim2=2).zero_()
            self._past = past.view(1, beams, -1).repeat(rows, 1, 1)

    def _of_source(self, encoded: torch.Tensor, source: Segments, attention: Attention) -> torch.Tensor:
        both = torch.stack([attention.key(encoded[0]), attention.value(encoded[0])], 1)  # (T, 2, heads * d)
        padded = source.pad(both.to(self._dtype))  # (B, S, 2, heads * d)
        return padded.view(*padded.shape[:3], attention.heads, -1).permute(2, 0, 3, 1, 4).contiguous()

    def step(self, ids: torch.Tensor, place: int) -> torch.Tensor:
        """(B * G, H) what is to be looked up in the vocabulary after these tokens (B * G,), the `place`-th of their
        rows. Places come one after the other from 0."""
        hidden = self._family.embed(ids, place)
        mask = self._mask(place)
        for layer in self._layers:
            hidden = self._family.through(
                layer.module,
                hidden,
                own=partial(self._own, layer, place=place, mask=mask),
                source=partial(self._source, layer),
            )
        return self._family.finish(hidden)

    def _mask(self, place: int) -> torch.Tensor | None:
        """Of the keys up to a place, to broadcast over (B, heads, G, keys)."""
        keys = (place + 1) * self._beams
        mask = None if self._past is None else self._past[:, None, :, :keys]
        if self._bias is not None:
            bias = self._bias[None, :, None, place, :keys]
            mask = bias if mask is None else mask + bias
        return mask

    def _own(self, layer: _Layer, hidden: torch.Tensor, *, place: int, mask: torch.Tensor | None) -> torch.Tensor:
        made = linear(hidden, layer.weight, layer.bias).view(
            -1, self._beams, 3, layer.to_own.heads, layer.own.shape[-1]
        )
        made = made.permute(2, 0, 3, 1, 4)  # (3, B, heads, G, d)
        keys = (place + 1) * self._beams
        layer.own[:, :, :, keys - self._beams : keys] = made[1:]
        return self._attend(made[0], layer.own[:, :, :, :keys], mask, attention=layer.to_own)

    def _source(self, layer: _Layer, hidden: torch.Tensor) -> torch.Tensor:
        attention = layer.to_source
        query = attention.query(hidden).view(-1, self._beams, attention.heads, layer.source.shape[-1])
        return self._attend(query.transpose(1, 2), layer.source, self._hidden, attention=attention)

    def follow(self, parents: torch.Tensor, place: int) -> None:
        """Beam i of each source goes on from what was beam `parents[:, i]` up to a place; `parents`: (B, G)."""
        assert self._past is not None
        known = self._past[:, :, : (place + 1) * self._beams]
        known.copy_(known.gather(1, parents[:, :, None].expand(known.shape)))

    def keep(self, rows: torch.Tensor) -> None:
        """Forget all sources but these, (b,) int64."""
        for layer in self._layers:
            layer.own, layer.source = (x.index_select(1, rows) for x in (layer.own, layer.source))
        if self._hidden is not None:
            self._hidden = self._hidden.index_select(0, rows)
        if self._past is not None:
            self._past = self._past.index_select(0, rows)

    def _attend(
        self, query: torch.Tensor, seen: torch.Tensor, mask: torch.Tensor | None, *, attention: Attention
    ) -> torch.Tensor:
        """(B * G, H) of queries (B, heads, G, d) over keys and values (2, B, heads, n, d)."""
        query = query.to(self._dtype)
        if not self._has_kernel:
            q, (k, v) = query.flatten(0, 1), seen.flatten(1, 2)
            weights = torch.baddbmm(q.new_empty(1), q, k.transpose(1, 2), beta=0, alpha=attention.scale)
            if mask is not None:
                weights.view(*query.shape[:3], -1).add_(mask)
            output = torch.bmm(torch.softmax(weights, -1), v).view(query.shape)
        else:
            output = scaled_dot_product_attention(query, seen[0], seen[1], attn_mask=mask, scale=attention.scale)
        joined = output.transpose(1, 2).reshape(-1, attention.out.in_features)
        found: torch.Tensor = attention.out(joined.to(attention.out.weight.dtype))
        return found
