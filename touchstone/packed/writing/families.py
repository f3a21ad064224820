"""How the decoders of known architectures are put together, so that `decoder` can run them token by token.

A family says what its modules are called and in which order a layer calls them; the modules themselves are the model's
own. Only exact types are known: a subclass may compute something else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
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

Sublayer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Attention:
    """The parts of one attention of one layer.

    Attributes:
        query, key, value, out: linear layers.
        scale: of the products of queries and keys.
    """

    query: torch.nn.Linear
    key: torch.nn.Linear
    value: torch.nn.Linear
    out: torch.nn.Linear
    heads: int
    scale: float


class Family(ABC):
    """The decoder of a model. Tokens are one of each of N rows, all at the same place."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.decoder = model.get_decoder()

    @property
    @abstractmethod
    def layers(self) -> list[Any]:
        """The modules of the layers."""

    @abstractmethod
    def attentions(self, layer: Any) -> tuple[Attention, Attention]:
        """To the row's own tokens, and to its source."""

    @abstractmethod
    def embed(self, ids: torch.Tensor, place: int) -> torch.Tensor:
        """(N, H) what the first layer reads of the tokens (N,) at a place."""

    @abstractmethod
    def through(self, layer: Any, hidden: torch.Tensor, *, own: Sublayer, source: Sublayer) -> torch.Tensor:
        """(N, H) after a layer, with its two attentions, (N, H) to (N, H) each, in their places."""

    @abstractmethod
    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """(N, H) what the layer over the vocabulary reads."""

    def bias(self, steps: int) -> torch.Tensor | None:
        """(heads, steps, steps) of each query's place to each key's, added to the scores of attention."""
        return None


class BartFamily(Family):
    """BART and its kin. Marian has no normalization of embeddings; mBART and Pegasus normalize before their sublayers,
    and once more at the end."""

    def __init__(self, model: Any, *, before: bool) -> None:
        super().__init__(model)
        self.before = before
        self.scale = getattr(self.decoder, "embed_scale", None)  # BART's kin scale within the embedding
        self.normalize_embedding = getattr(self.decoder, "layernorm_embedding", None)

    @property
    def layers(self) -> list[Any]:
        return list(self.decoder.layers)

    def attentions(self, layer: Any) -> tuple[Attention, Attention]:
        own, source = (
            Attention(each.q_proj, each.k_proj, each.v_proj, each.out_proj, each.num_heads, each.scaling)
            for each in (layer.self_attn, layer.encoder_attn)
        )
        return own, source

    def embed(self, ids: torch.Tensor, place: int) -> torch.Tensor:
        hidden: torch.Tensor = self.decoder.embed_tokens(ids)
        if self.scale is not None:
            hidden = hidden * self.scale
        at = torch.full((1,), place, device=ids.device)
        hidden = hidden + self.decoder.embed_positions(ids[:, None], position_ids=at).view(1, -1)
        return hidden if self.normalize_embedding is None else self.normalize_embedding(hidden)

    def through(self, layer: Any, hidden: torch.Tensor, *, own: Sublayer, source: Sublayer) -> torch.Tensor:
        def forward(x: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = layer.fc2(layer.activation_fn(layer.fc1(x)))
            return output

        norms = (layer.self_attn_layer_norm, layer.encoder_attn_layer_norm, layer.final_layer_norm)
        for norm, sublayer in zip(norms, (own, source, forward), strict=True):
            hidden = hidden + sublayer(norm(hidden)) if self.before else norm(hidden + sublayer(hidden))
        return hidden

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.decoder.layer_norm(hidden) if self.before else hidden


class T5Family(Family):
    """T5 and mT5: no positions but a bias by distance, which the first layer has for all."""

    @property
    def layers(self) -> list[Any]:
        return list(self.decoder.block)

    def attentions(self, layer: Any) -> tuple[Attention, Attention]:
        own, source = (
            Attention(each.q, each.k, each.v, each.o, each.n_heads, each.scaling)
            for each in (layer.layer[0].SelfAttention, layer.layer[1].EncDecAttention)
        )
        return own, source

    def embed(self, ids: torch.Tensor, place: int) -> torch.Tensor:
        hidden: torch.Tensor = self.decoder.embed_tokens(ids)
        return hidden

    def through(self, layer: Any, hidden: torch.Tensor, *, own: Sublayer, source: Sublayer) -> torch.Tensor:
        first, second, forward = layer.layer
        hidden = hidden + own(first.layer_norm(hidden))
        hidden = hidden + source(second.layer_norm(hidden))
        hidden = forward(hidden)
        return hidden

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = self.decoder.final_layer_norm(hidden)
        scaled = isinstance(self.model, T5ForConditionalGeneration) and self.model.config.scale_decoder_outputs
        return hidden * self.model.model_dim**-0.5 if scaled else hidden

    def bias(self, steps: int) -> torch.Tensor | None:
        bias: torch.Tensor = self.decoder.block[0].layer[0].SelfAttention.compute_bias(steps, steps)
        return bias[0]


KNOWN: dict[type[PreTrainedModel], Callable[[Any], Family]] = {
    MarianMTModel: lambda model: BartFamily(model, before=False),
    BartForConditionalGeneration: lambda model: BartFamily(model, before=False),
    PLBartForConditionalGeneration: lambda model: BartFamily(model, before=False),
    MBartForConditionalGeneration: lambda model: BartFamily(model, before=True),
    PegasusForConditionalGeneration: lambda model: BartFamily(model, before=True),
    T5ForConditionalGeneration: T5Family,
    MT5ForConditionalGeneration: T5Family,
}


def family_of(model: PreTrainedModel) -> Family | None:
    """None of a model that is not known."""
    known = KNOWN.get(type(model))
    return None if known is None else known(model)
