"""The decoder of an encoder-decoder model, one token at a time, for all beams of all sources.

It calls the model's own modules in the order that the model would. A `Family` knows how a known architecture names its
modules and orders them. Only exact types are known, because a subclass may compute something else.

For B sources with G beams each, keys and values are stored once per source, never once per beam:

* those of the source are computed once;
* those of the generated tokens go into a tensor allocated for all steps. The token that beam g got at step s has column
  s * G + g, and stays there when beams are reordered. `_history` marks the columns of a beam's own past: a beam that
  goes on from another one gets a copy of that one's row.

        G = 2          columns    step 0   step 1   step 2
                                   0 1      0 1      0 1
        history of beam 0:         x .      x .      x .
        history of beam 1:         x .      . x      . x       (it went on from beam 0 after step 0)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import (
    BartForConditionalGeneration,
    MarianMTModel,
    MBartForConditionalGeneration,
    MT5ForConditionalGeneration,
    PegasusForConditionalGeneration,
    PLBartForConditionalGeneration,
    PreTrainedModel,
    T5ForConditionalGeneration,
)

from touchstone.packed.layout import Segments

Sublayer = Callable[[torch.Tensor], torch.Tensor]


# Architectures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attention:
    """The parts of one attention module.

    Attributes:
        query, key, value, out: linear layers.
        scale: factor of the products of queries and keys.
    """

    query: torch.nn.Linear
    key: torch.nn.Linear
    value: torch.nn.Linear
    out: torch.nn.Linear
    heads: int
    scale: float


class Family(ABC):
    """The modules of a decoder. Methods compute one token of each of N rows, all at the same position."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.decoder = model.get_decoder()

    @property
    @abstractmethod
    def layers(self) -> list[Any]:
        """The layers, in order."""

    @abstractmethod
    def attentions(self, layer: Any) -> tuple[Attention, Attention]:
        """Return the self-attention and the cross-attention of a layer."""

    @abstractmethod
    def embed(self, ids: torch.Tensor, position: int) -> torch.Tensor:
        """Compute (N, H) the input of the first layer for the tokens (N,) at this position."""

    @abstractmethod
    def apply_layer(
        self, layer: Any, hidden: torch.Tensor, *, self_attention: Sublayer, cross_attention: Sublayer
    ) -> torch.Tensor:
        """Compute (N, H) a layer's output, with its two attentions replaced by these functions of (N, H)."""

    @abstractmethod
    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute (N, H) the input of the output layer."""

    def bias(self, steps: int) -> torch.Tensor | None:
        """Compute (heads, steps, steps) what self-attention adds to the score of each query and key position."""
        return None


class BartFamily(Family):
    """BART and its relatives.

    Marian does not normalize embeddings. mBART and Pegasus normalize before each sublayer (`norm_first`) instead of
    after it, and once more at the end.
    """

    def __init__(self, model: Any, *, norm_first: bool) -> None:
        super().__init__(model)
        self.norm_first = norm_first
        self.scale = getattr(self.decoder, "embed_scale", None)  # only Marian and Pegasus scale outside the embedding
        self.normalize_embedding = getattr(self.decoder, "layernorm_embedding", None)

    @property
    def layers(self) -> list[Any]:
        return list(self.decoder.layers)

    def attentions(self, layer: Any) -> tuple[Attention, Attention]:
        first, second = (
            Attention(each.q_proj, each.k_proj, each.v_proj, each.out_proj, each.num_heads, each.scaling)
            for each in (layer.self_attn, layer.encoder_attn)
        )
        return first, second

    def embed(self, ids: torch.Tensor, position: int) -> torch.Tensor:
        hidden: torch.Tensor = self.decoder.embed_tokens(ids)
        if self.scale is not None:
            hidden = hidden * self.scale
        positions = torch.full((1,), position, device=ids.device)
        hidden = hidden + self.decoder.embed_positions(ids[:, None], position_ids=positions).view(1, -1)
        return hidden if self.normalize_embedding is None else self.normalize_embedding(hidden)

    def apply_layer(
        self, layer: Any, hidden: torch.Tensor, *, self_attention: Sublayer, cross_attention: Sublayer
    ) -> torch.Tensor:
        def feed_forward(x: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = layer.fc2(layer.activation_fn(layer.fc1(x)))
            return output

        norms = (layer.self_attn_layer_norm, layer.encoder_attn_layer_norm, layer.final_layer_norm)
        for norm, sublayer in zip(norms, (self_attention, cross_attention, feed_forward), strict=True):
            hidden = hidden + sublayer(norm(hidden)) if self.norm_first else norm(hidden + sublayer(hidden))
        return hidden

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.decoder.layer_norm(hidden) if self.norm_first else hidden


class T5Family(Family):
    """T5 and mT5: instead of positions they have a bias by distance, which the first layer computes for all."""

    @property
    def layers(self) -> list[Any]:
        return list(self.decoder.block)

    def attentions(self, layer: Any) -> tuple[Attention, Attention]:
        first, second = (
            Attention(each.q, each.k, each.v, each.o, each.n_heads, each.scaling)
            for each in (layer.layer[0].SelfAttention, layer.layer[1].EncDecAttention)
        )
        return first, second

    def embed(self, ids: torch.Tensor, position: int) -> torch.Tensor:
        hidden: torch.Tensor = self.decoder.embed_tokens(ids)
        return hidden

    def apply_layer(
        self, layer: Any, hidden: torch.Tensor, *, self_attention: Sublayer, cross_attention: Sublayer
    ) -> torch.Tensor:
        first, second, feed_forward = layer.layer
        hidden = hidden + self_attention(first.layer_norm(hidden))
        hidden = hidden + cross_attention(second.layer_norm(hidden))
        hidden = feed_forward(hidden)
        return hidden

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self.decoder.final_layer_norm(hidden)
        scaled = isinstance(self.model, T5ForConditionalGeneration) and self.model.config.scale_decoder_outputs
        return hidden * self.model.model_dim**-0.5 if scaled else hidden

    def bias(self, steps: int) -> torch.Tensor | None:
        bias: torch.Tensor = self.decoder.block[0].layer[0].SelfAttention.compute_bias(steps, steps)
        return bias[0]


FAMILIES: dict[type[PreTrainedModel], Callable[[Any], Family]] = {
    MarianMTModel: lambda model: BartFamily(model, norm_first=False),
    BartForConditionalGeneration: lambda model: BartFamily(model, norm_first=False),
    PLBartForConditionalGeneration: lambda model: BartFamily(model, norm_first=False),
    MBartForConditionalGeneration: lambda model: BartFamily(model, norm_first=True),
    PegasusForConditionalGeneration: lambda model: BartFamily(model, norm_first=True),
    T5ForConditionalGeneration: T5Family,
    MT5ForConditionalGeneration: T5Family,
}


def find_family(model: PreTrainedModel) -> Family | None:
    """Return the family of a model, or None if its type is not known."""
    make = FAMILIES.get(type(model))
    return None if make is None else make(model)


# Decoding -------------------------------------------------------------------------------------------------------------


def use_torch_attention(device: torch.device) -> bool:
    """Decide whether to use torch's attention for single queries. On a CPU it is slow for them: there plain matrix
    products are faster, and in float32, which is also more exact."""
    return device.type != "cpu"


@dataclass
class _Layer:
    """A layer with its cache.

    Attributes:
        weight, bias: of query, key and value in one matrix product.
        generated: (2, B, heads, steps * G, d) keys and values of the generated tokens.
        source: (2, B, heads, S, d) keys and values of the sources.
    """

    module: Any
    self_attention: Attention
    cross_attention: Attention
    weight: torch.Tensor
    bias: torch.Tensor | None
    generated: torch.Tensor
    source: torch.Tensor


class Decoder:
    """Computes hidden states one position at a time; see the module's docstring.

    Args:
        family: of the model.
        encoded: (1, T, H) the encoder's output for the real tokens of B sources, packed.
        source: the rows of `encoded`.
        beams: G.
        steps: the largest number of generated tokens.
    """

    def __init__(self, family: Family, *, encoded: torch.Tensor, source: Segments, beams: int, steps: int) -> None:
        self._family, self._beams = family, beams
        self._use_torch_attention = use_torch_attention(encoded.device)
        self._dtype = encoded.dtype if self._use_torch_attention else torch.promote_types(encoded.dtype, torch.float32)
        # Finite, because a source may have no tokens, and softmax over nothing but minus infinity is NaN.
        masked = torch.finfo(self._dtype).min
        rows = len(source.lengths)
        self._layers = []
        for module in family.layers:
            first, second = family.attentions(module)
            width = first.key.out_features // first.heads
            generated = encoded.new_empty((2, rows, first.heads, steps * beams, width), dtype=self._dtype)
            projections = (first.query, first.key, first.value)
            weights: list[torch.Tensor] = [each.weight for each in projections]
            biases: list[torch.Tensor] = [each.bias for each in projections if each.bias is not None]
            self._layers.append(
                _Layer(
                    module,
                    first,
                    second,
                    torch.cat(weights),
                    torch.cat(biases) if biases else None,
                    generated,
                    self._project_source(encoded, source, second),
                )
            )
        self._source_mask: torch.Tensor | None = None  # (B, 1, 1, S), added to the scores
        if source.has_padding:
            real = torch.from_numpy(source.mask).to(encoded.device)
            mask = torch.zeros(real.shape, dtype=self._dtype, device=real.device).masked_fill_(~real, masked)
            self._source_mask = mask[:, None, None]
        bias = family.bias(steps)
        self._bias = None if bias is None else bias.to(self._dtype).repeat_interleave(beams, -1)  # (heads, steps, *)
        self._history: torch.Tensor | None = None  # (B, G, steps * G), added to the scores
        if beams > 1:
            history = torch.full((beams, steps, beams), masked, dtype=self._dtype, device=encoded.device)
            history.diagonal(dim1=0, dim2=2).zero_()
            self._history = history.view(1, beams, -1).repeat(rows, 1, 1)

    def _project_source(self, encoded: torch.Tensor, source: Segments, attention: Attention) -> torch.Tensor:
        """Compute (2, B, heads, S, d) the keys and values of all sources."""
        both = torch.stack([attention.key(encoded[0]), attention.value(encoded[0])], 1)  # (T, 2, heads * d)
        padded = source.pad(both.to(self._dtype))  # (B, S, 2, heads * d)
        return padded.view(*padded.shape[:3], attention.heads, -1).permute(2, 0, 3, 1, 4).contiguous()

    def step(self, ids: torch.Tensor, position: int) -> torch.Tensor:
        """Compute (B * G, H) the input of the output layer after these tokens (B * G,) at this position.

        Call it for the positions 0, 1, 2 and so on, in this order: it fills the cache.
        """
        hidden = self._family.embed(ids, position)
        mask = self._mask(position)
        for layer in self._layers:
            hidden = self._family.apply_layer(
                layer.module,
                hidden,
                self_attention=partial(self._attend_to_generated, layer, position=position, mask=mask),
                cross_attention=partial(self._attend_to_source, layer),
            )
        return self._family.finish(hidden)

    def _mask(self, position: int) -> torch.Tensor | None:
        """Return what self-attention adds to its scores; it broadcasts to (B, heads, G, keys up to this position)."""
        keys = (position + 1) * self._beams
        mask = None if self._history is None else self._history[:, None, :, :keys]
        if self._bias is not None:
            bias = self._bias[None, :, None, position, :keys]
            mask = bias if mask is None else mask + bias
        return mask

    def _attend_to_generated(
        self, layer: _Layer, hidden: torch.Tensor, *, position: int, mask: torch.Tensor | None
    ) -> torch.Tensor:
        projected = linear(hidden, layer.weight, layer.bias).view(
            -1, self._beams, 3, layer.self_attention.heads, layer.generated.shape[-1]
        )
        projected = projected.permute(2, 0, 3, 1, 4)  # (3, B, heads, G, d)
        keys = (position + 1) * self._beams
        layer.generated[:, :, :, keys - self._beams : keys] = projected[1:]
        return self._attend(projected[0], layer.generated[:, :, :, :keys], mask, attention=layer.self_attention)

    def _attend_to_source(self, layer: _Layer, hidden: torch.Tensor) -> torch.Tensor:
        attention = layer.cross_attention
        query = attention.query(hidden).view(-1, self._beams, attention.heads, layer.source.shape[-1])
        return self._attend(query.transpose(1, 2), layer.source, self._source_mask, attention=attention)

    def _attend(
        self, query: torch.Tensor, keys_values: torch.Tensor, mask: torch.Tensor | None, *, attention: Attention
    ) -> torch.Tensor:
        """Compute (B * G, H) from queries (B, heads, G, d) and keys and values (2, B, heads, n, d)."""
        query = query.to(self._dtype)
        if not self._use_torch_attention:
            q, (k, v) = query.flatten(0, 1), keys_values.flatten(1, 2)
            weights = torch.baddbmm(q.new_empty(1), q, k.transpose(1, 2), beta=0, alpha=attention.scale)
            if mask is not None:
                weights.view(*query.shape[:3], -1).add_(mask)
            output = torch.bmm(torch.softmax(weights, -1), v).view(query.shape)
        else:
            k, v = keys_values
            output = scaled_dot_product_attention(query, k, v, attn_mask=mask, scale=attention.scale)
        joined = output.transpose(1, 2).reshape(-1, attention.out.in_features)
        projected: torch.Tensor = attention.out(joined.to(attention.out.weight.dtype))
        return projected

    def reorder(self, parents: torch.Tensor, position: int) -> None:
        """Make beam i of each source go on from the history of beam `parents[:, i]` up to this position.

        Args:
            parents: (B, G) int64.
        """
        assert self._history is not None
        history = self._history[:, :, : (position + 1) * self._beams]
        history.copy_(history.gather(1, parents[:, :, None].expand(history.shape)))

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all sources except these, (b,) int64."""
        for layer in self._layers:
            layer.generated, layer.source = (x.index_select(1, rows) for x in (layer.generated, layer.source))
        if self._source_mask is not None:
            self._source_mask = self._source_mask.index_select(0, rows)
        if self._history is not None:
            self._history = self._history.index_select(0, rows)
