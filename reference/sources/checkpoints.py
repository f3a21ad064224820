"""The embedded checkpoints: small models with random weights and a stored tokenizer, available offline.

The tokenizers are JSON files in `embedded/tokenizers/`. They were trained on the embedded data by `tools/microworld`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, model_validator
from tokenizers import Tokenizer
from transformers import (
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    MarianConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from touchstone.fields import FrozenModel
from touchstone.sources.embedded import FOLDER
from touchstone.sources.source import SourceError

if TYPE_CHECKING:  # importing it takes seconds, and only callers that make a model need it
    from transformers import PreTrainedModel

Architecture = Literal["bert", "distilbert", "modernbert", "marian", "t5", "gpt2"]
"""The names in `ARCHITECTURES`.

`modernbert` (rotary positions, local attention) learns masked language modeling within a few hundred steps. The
architectures with learned absolute positions need more than a thousand steps before they use neighbouring tokens.
"""
TOKENIZERS = FOLDER / "tokenizers"


class MicroworldCheckpoint(FrozenModel):
    """A small architecture with random weights, and a tokenizer that was trained on the embedded data.

    Every field, defaults included, is part of the hash of every spec that has one, so a new field would outdate all
    expectations.
    """

    source: Literal["microworld"] = "microworld"
    architecture: Architecture
    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    max_positions: int = Field(default=128, ge=8)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    tokenizer: Literal["wordpiece", "byte-bpe", "metaspace-bpe"] = "wordpiece"
    vocabulary: int = Field(default=1200, gt=0, description="tokens, special ones included")
    seed: Literal[0] = Field(default=0, description="of the embedded data that the tokenizer was trained on")

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> MicroworldCheckpoint:
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} is not a multiple of heads = {self.heads}")
        return self


@dataclass(frozen=True)
class Marks:
    """The special tokens of a tokenizer.

    Attributes:
        roles: role, as transformers names it, to token. The place of a token among the different tokens is its id.
    """

    roles: dict[str, str]

    @cached_property
    def special(self) -> tuple[str, ...]:
        """The different tokens in the order of their ids."""
        return tuple(dict.fromkeys(self.roles.values()))

    def id(self, role: str) -> int:
        """Return the id of the token with this role."""
        return self.special.index(self.roles[role])


MARKS = {
    "bert": Marks(
        {
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        }
    ),
    # Id 0 is </s> in Marian and <pad> in T5.
    "marian": Marks({"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}),
    "t5": Marks({"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}),
    # GPT-2 has one special token for every role, and its tokenizer never adds it.
    "gpt2": Marks(dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>")),
}
BERT, MARIAN, T5, GPT2 = (MARKS[name] for name in ("bert", "marian", "t5", "gpt2"))


@dataclass(frozen=True)
class SmallArchitecture:
    """An entry of `ARCHITECTURES`.

    Attributes:
        config: returns the type and the entries of the config for a checkpoint and a number of tokens.
        marks: key in `MARKS`. Architectures with the same marks share their tokenizers.
        inputs: the names of the tokenizer's outputs that the model takes.
    """

    config: Callable[[MicroworldCheckpoint, int], tuple[type[PreTrainedConfig], dict[str, Any]]]
    marks: str
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")


def microworld_tokenizer(checkpoint: MicroworldCheckpoint) -> PreTrainedTokenizerFast:
    """Return a fast tokenizer that adds the architecture's marks: `[CLS] a [SEP] b [SEP]` for BERT, `a </s>` for T5.

    Raises:
        SourceError: no tokenizer of this family and size is stored for the architecture.
    """
    architecture = ARCHITECTURES[checkpoint.architecture]
    path = TOKENIZERS / tokenizer_file(architecture.marks, checkpoint.tokenizer, checkpoint.vocabulary)
    if not path.is_file():
        stored = [file.stem.split("-", 1)[1] for file in sorted(TOKENIZERS.glob(f"{architecture.marks}-*.json"))]
        raise SourceError(
            f"the embedded checkpoints have no tokenizer {checkpoint.tokenizer}-{checkpoint.vocabulary} for "
            f"architecture = {checkpoint.architecture}: set tokenizer and vocabulary to one of "
            f"{', '.join(stored)}"
        )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_file(str(path)),
        model_max_length=checkpoint.max_positions,
        model_input_names=list(architecture.inputs),
        **MARKS[architecture.marks].roles,
    )


def tokenizer_file(marks: str, family: str, vocabulary: int) -> str:
    """Return the name of the file of a stored tokenizer."""
    return f"{marks}-{family}-{vocabulary}.json"


def microworld_config(checkpoint: MicroworldCheckpoint, **overrides: Any) -> PreTrainedConfig:
    """Return the config of the architecture in the declared size."""
    kind, entries = ARCHITECTURES[checkpoint.architecture].config(checkpoint, len(microworld_tokenizer(checkpoint)))
    return kind(**entries | overrides)


def microworld_model(checkpoint: MicroworldCheckpoint, auto_class: Any, **config: Any) -> PreTrainedModel:
    """Return a model in float32 whose random weights are drawn from torch's global generator."""
    made: PreTrainedModel = auto_class.from_config(microworld_config(checkpoint, **config), dtype=torch.float32)
    return made


# The configs


def _initializer_range(size: MicroworldCheckpoint) -> float:
    """Scale BERT's 0.02 at width 768 so that the outputs of a layer vary as much: tiny models learn sooner with it."""
    return float(0.02 * (768 / size.hidden) ** 0.5)


def _encoder(size: MicroworldCheckpoint, vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "max_position_embeddings": size.max_positions,
        "pad_token_id": BERT.id("pad_token"),
        "initializer_range": _initializer_range(size),
    }


def _bert(size: MicroworldCheckpoint, vocabulary: int) -> tuple[type[PreTrainedConfig], dict[str, Any]]:
    return BertConfig, _encoder(size, vocabulary) | {
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.hidden,
        "hidden_dropout_prob": size.dropout,
        "attention_probs_dropout_prob": size.dropout,
    }


def _distilbert(size: MicroworldCheckpoint, vocabulary: int) -> tuple[type[PreTrainedConfig], dict[str, Any]]:
    return DistilBertConfig, _encoder(size, vocabulary) | {
        "dim": size.hidden,
        "n_layers": size.layers,
        "n_heads": size.heads,
        "hidden_dim": 4 * size.hidden,
        "dropout": size.dropout,
        "attention_dropout": size.dropout,
    }


def _modernbert(size: MicroworldCheckpoint, vocabulary: int) -> tuple[type[PreTrainedConfig], dict[str, Any]]:
    return ModernBertConfig, _encoder(size, vocabulary) | {
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 2 * size.hidden,  # gated: as many weights as 3 * hidden without a gate
        # In a short text, near tokens matter: the first layer sees 4 tokens on either side, and the rotary positions
        # turn fast.
        "layer_types": ["sliding_attention"] + ["full_attention"] * (size.layers - 1),
        "local_attention": 8,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 100.0} for kind in ("sliding_attention", "full_attention")
        },
        "embedding_dropout": size.dropout,
        "mlp_dropout": size.dropout,
        "attention_dropout": size.dropout,
        "classifier_dropout": size.dropout,
        "bos_token_id": BERT.id("cls_token"),
        "eos_token_id": BERT.id("sep_token"),
        "cls_token_id": BERT.id("cls_token"),
        "sep_token_id": BERT.id("sep_token"),
    }


def _marian(size: MicroworldCheckpoint, vocabulary: int) -> tuple[type[PreTrainedConfig], dict[str, Any]]:
    """Return a config like that of the opus-mt models.

    Encoder and decoder have the same number of layers, positions are sinusoidal, one matrix serves for both embeddings
    and the head, and the decoder starts with the padding token.
    """
    return MarianConfig, {
        "vocab_size": vocabulary,
        "decoder_vocab_size": vocabulary,
        "max_position_embeddings": size.max_positions,
        "d_model": size.hidden,
        "encoder_layers": size.layers,
        "decoder_layers": size.layers,
        "encoder_attention_heads": size.heads,
        "decoder_attention_heads": size.heads,
        "encoder_ffn_dim": 4 * size.hidden,
        "decoder_ffn_dim": 4 * size.hidden,
        "activation_function": "swish",
        "dropout": size.dropout,
        "scale_embedding": True,
        "init_std": _initializer_range(size),
        "pad_token_id": MARIAN.id("pad_token"),
        "eos_token_id": MARIAN.id("eos_token"),
        "forced_eos_token_id": MARIAN.id("eos_token"),
        "decoder_start_token_id": MARIAN.id("pad_token"),
    }


def _t5(size: MicroworldCheckpoint, vocabulary: int) -> tuple[type[PreTrainedConfig], dict[str, Any]]:
    """Return a config like that of mT5, with gated feed-forward layers.

    Unlike mT5, it scales the decoder's outputs before the head, as T5 does. The head shares the weights of the
    embedding, which start so large that the loss would otherwise begin at about 30 nats. The decoder starts with the
    padding token.
    """
    return T5Config, {
        "vocab_size": vocabulary,
        "d_model": size.hidden,
        "d_kv": size.hidden // size.heads,
        "d_ff": 2 * size.hidden,  # gated
        "num_layers": size.layers,
        "num_decoder_layers": size.layers,
        "num_heads": size.heads,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": size.dropout,
        "pad_token_id": T5.id("pad_token"),
        "eos_token_id": T5.id("eos_token"),
        "decoder_start_token_id": T5.id("pad_token"),
    }


def _gpt2(size: MicroworldCheckpoint, vocabulary: int) -> tuple[type[PreTrainedConfig], dict[str, Any]]:
    return GPT2Config, {
        "vocab_size": vocabulary,
        "n_positions": size.max_positions,
        "n_embd": size.hidden,
        "n_layer": size.layers,
        "n_head": size.heads,
        "resid_pdrop": size.dropout,
        "embd_pdrop": size.dropout,
        "attn_pdrop": size.dropout,
        "initializer_range": _initializer_range(size),
        "bos_token_id": GPT2.id("bos_token"),
        "eos_token_id": GPT2.id("eos_token"),
        "pad_token_id": GPT2.id("pad_token"),
    }


ARCHITECTURES: dict[Architecture, SmallArchitecture] = {
    "bert": SmallArchitecture(_bert, "bert", inputs=("input_ids", "attention_mask", "token_type_ids")),
    "distilbert": SmallArchitecture(_distilbert, "bert"),
    "modernbert": SmallArchitecture(_modernbert, "bert"),
    "marian": SmallArchitecture(_marian, "marian"),
    "t5": SmallArchitecture(_t5, "t5"),
    "gpt2": SmallArchitecture(_gpt2, "gpt2"),
}
"""To add an architecture, add an entry here and its name in `Architecture`. New marks need a stored tokenizer too."""
