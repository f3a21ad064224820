"""Architectures in small: the config of each in a declared size, and how its tokenizer marks a text.

Adding one is an entry in `ARCHITECTURES` and its name in `Architecture`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from transformers import (
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    MarianConfig,
    ModernBertConfig,
    PreTrainedConfig,
    T5Config,
)

Architecture = Literal["bert", "distilbert", "modernbert", "marian", "t5", "gpt2"]
"""`modernbert` (rotary positions, local attention) learns masked language modeling within a few hundred steps. The
others, with learned absolute positions, take more than a thousand before they use their neighbours at all."""


class Size(Protocol):
    """What a checkpoint declares of its model."""

    @property
    def layers(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def max_positions(self) -> int: ...
    @property
    def dropout(self) -> float: ...


@dataclass(frozen=True)
class Marks:
    """The special tokens of a tokenizer and where it puts them.

    Attributes:
        tokens: (role, token) as transformers calls the roles; a token's place among those that differ is its id.
        single, pair: templates of `tokenizers.processors.TemplateProcessing` for one text and two.
        opens_with_space: byte-level BPE reads a text as if a space stood before it, so that its first word is a word
            like any other. False where a text must come back as it was.
    """

    tokens: tuple[tuple[str, str], ...]
    single: str
    pair: str
    opens_with_space: bool = True

    @property
    def special(self) -> list[str]:
        """The tokens, each once, in the order of their ids."""
        return list(dict.fromkeys(token for _, token in self.tokens))

    def id(self, role: str) -> int:
        return self.special.index(dict(self.tokens)[role])

    @property
    def unknown(self) -> str | None:
        return dict(self.tokens).get("unk_token")


BERT = Marks(
    (
        ("pad_token", "[PAD]"),
        ("unk_token", "[UNK]"),
        ("cls_token", "[CLS]"),
        ("sep_token", "[SEP]"),
        ("mask_token", "[MASK]"),
    ),
    single="[CLS]:0 $A:0 [SEP]:0",
    pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
)
# Marian's </s> is id 0 and its pad is not; T5's are the other way round.
MARIAN = Marks(
    (("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")),
    single="$A:0 </s>:0",
    pair="$A:0 $B:0 </s>:0",
)
T5 = Marks(
    (("pad_token", "<pad>"), ("eos_token", "</s>"), ("unk_token", "<unk>")),
    single="$A:0 </s>:0",
    pair="$A:0 </s>:0 $B:0 </s>:0",
)

# GPT-2 has one mark for all there is to mark, and puts it nowhere by itself.
GPT2 = Marks(
    tuple((f"{role}_token", "<|endoftext|>") for role in ("bos", "eos", "pad", "unk")),
    single="$A:0",
    pair="$A:0 $B:0",
    opens_with_space=False,
)


@dataclass(frozen=True)
class SmallArchitecture:
    """One entry of the table.

    Attributes:
        config: type and entries of the config for a size and a vocabulary of so many tokens.
        marks: of its tokenizer.
        reads: the columns of the microworld that its tokenizer learns from.
        inputs: what its tokenizer hands to the model.
        writes: whether it produces text, so that its tokenizer must give back what it read.
    """

    config: Callable[[Size, int], tuple[type[PreTrainedConfig], dict[str, Any]]]
    marks: Marks
    reads: tuple[str, ...] = ("text",)
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    writes: bool = False


def small_config(architecture: Architecture, size: Size, *, vocabulary: int, **overrides: Any) -> PreTrainedConfig:
    """The architecture's config in the declared size."""
    kind, entries = ARCHITECTURES[architecture].config(size, vocabulary)
    return kind(**entries | overrides)


def _spread(size: Size) -> float:
    """BERT's 0.02 at width 768, scaled so that a layer's output varies as much: tiny models learn sooner."""
    return float(0.02 * (768 / size.hidden) ** 0.5)


def _encoder(size: Size, vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "max_position_embeddings": size.max_positions,
        "pad_token_id": BERT.id("pad_token"),
        "initializer_range": _spread(size),
    }


def _bert(size: Size, vocabulary: int) -> tuple[type[PreTrainedConfig], dict[str, Any]]:
    return BertConfig, _encoder(size, vocabulary) | {
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.hidden,
        "hidden_dropout_prob": size.dropout,
        "attention_probs_dropout_prob": size.dropout,
    }


def _distilbert(size: Size, vocabulary: int) -> tuple[type[PreTrainedConfig], dict[str, Any]]:
    return DistilBertConfig, _encoder(size, vocabulary) | {
        "dim": size.hidden,
        "n_layers": size.layers,
        "n_heads": size.heads,
        "hidden_dim": 4 * size.hidden,
        "dropout": size.dropout,
        "attention_dropout": size.dropout,
    }


def _modernbert(size: Size, vocabulary: int) -> tuple[type[PreTrainedConfig], dict[str, Any]]:
    return ModernBertConfig, _encoder(size, vocabulary) | {
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 2 * size.hidden,  # gated: as many weights as 3 * hidden without a gate
        # What matters in a short text is near: the first layer sees 4 tokens to either side,
        # and positions turn fast.
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


def _marian(size: Size, vocabulary: int) -> tuple[type[PreTrainedConfig], dict[str, Any]]:
    """As the opus-mt models: as many layers in the decoder as in the encoder, sinusoidal positions, one matrix for
    both embeddings and the head; the decoder starts with pad."""
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
        "init_std": _spread(size),
        "pad_token_id": MARIAN.id("pad_token"),
        "eos_token_id": MARIAN.id("eos_token"),
        "forced_eos_token_id": MARIAN.id("eos_token"),
        "decoder_start_token_id": MARIAN.id("pad_token"),
    }


def _t5(size: Size, vocabulary: int) -> tuple[type[PreTrainedConfig], dict[str, Any]]:
    """As mT5 with gated feed-forward layers, but the decoder's outputs are scaled before the head, as T5's are: its
    weights are those of the embedding, so large at first that the loss would begin at some 30 nats. The decoder starts
    with pad."""
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


def _gpt2(size: Size, vocabulary: int) -> tuple[type[PreTrainedConfig], dict[str, Any]]:
    return GPT2Config, {
        "vocab_size": vocabulary,
        "n_positions": size.max_positions,
        "n_embd": size.hidden,
        "n_layer": size.layers,
        "n_head": size.heads,
        "resid_pdrop": size.dropout,
        "embd_pdrop": size.dropout,
        "attn_pdrop": size.dropout,
        "initializer_range": _spread(size),
        "bos_token_id": GPT2.id("bos_token"),
        "eos_token_id": GPT2.id("eos_token"),
        "pad_token_id": GPT2.id("pad_token"),
    }


ARCHITECTURES: dict[Architecture, SmallArchitecture] = {
    "bert": SmallArchitecture(_bert, BERT, inputs=("input_ids", "attention_mask", "token_type_ids")),
    "distilbert": SmallArchitecture(_distilbert, BERT),
    "modernbert": SmallArchitecture(_modernbert, BERT),
    "marian": SmallArchitecture(_marian, MARIAN, reads=("source", "target"), writes=True),
    "t5": SmallArchitecture(_t5, T5, writes=True),
    "gpt2": SmallArchitecture(_gpt2, GPT2, reads=("code",), writes=True),
}
