"""Tiny models from a config, with a tokenizer trained on the microworld: a checkpoint that any machine can make,
offline.

Nothing is pretrained and nothing is stored: the tokenizer is trained in well under a second, the same everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
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

from touchstone.sources.microworld import MicroworldData, microworld_examples

if TYPE_CHECKING:  # it takes seconds to import: only those who make a model pay
    from transformers import PreTrainedModel


# Architectures in small: the config of each in a declared size, and how its tokenizer marks a text. Adding one is
# an entry in `ARCHITECTURES` and its name in `Architecture`.


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


# Trains small tokenizers of three families, in well under a second, to the same bits on every machine.


WORD_START = "▁"

Family = Literal["wordpiece", "byte-bpe", "metaspace-bpe"]
Text = tuple[str, ...]


def train_tokenizer(family: Family, text: Text, *, vocabulary: int, marks: Marks) -> Tokenizer:
    """A tokenizer of `vocabulary` tokens, the special ones first, that puts its marks around a text."""
    tokenizer = _FAMILIES[family](text, vocabulary, marks)
    tokens = [(token, tokenizer.token_to_id(token)) for token in marks.special]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=marks.single,
        pair=marks.pair,
        special_tokens=[(token, index) for token, index in tokens if token in marks.pair],
    )
    return tokenizer


def _wordpiece(text: Text, vocabulary: int, marks: Marks) -> Tokenizer:
    """BERT's WordPiece, cased.

    The vocabulary is that of a BPE trained on words that begin with a mark: with the mark it opens a word, without it
    it continues one. (The library's WordPieceTrainer numbers characters in the order of a hash map, so that two
    trainings differ.)
    """
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    words = pre_tokenizers.BertPreTokenizer()
    special = marks.special
    bpe = Tokenizer(models.BPE(unk_token=marks.unknown))
    bpe.normalizer = normalizer
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always")]
    )
    characters = _characters(words, text)
    bpe.train_from_iterator(text, trainers.BpeTrainer(vocab_size=2 * vocabulary, show_progress=False))
    ranked = sorted(bpe.get_vocab().items(), key=lambda entry: entry[1])
    merged = (_piece(token) for token, _ in ranked if len(token) > 1)
    pieces = list(dict.fromkeys([*characters, *merged]))[: vocabulary - len(special)]
    vocab = {token: index for index, token in enumerate([*special, *pieces])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=marks.unknown, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    return tokenizer


def _characters(words: pre_tokenizers.PreTokenizer, text: Text) -> list[str]:
    """Single characters as pieces, opening and continuing, where the text has them twice or more; the rest is
    unknown.
    """
    counts: Counter[str] = Counter()
    for line in text:
        for word, _ in words.pre_tokenize_str(line):
            counts[word[0]] += 1
            counts.update(f"##{character}" for character in word[1:])
    return sorted(piece for piece, count in counts.items() if count > 1)


def _piece(token: str) -> str:
    return token.removeprefix(WORD_START) if token.startswith(WORD_START) else f"##{token}"


def _byte_bpe(text: Text, vocabulary: int, marks: Marks) -> Tokenizer:
    """Byte-level BPE (GPT-2, RoBERTa): no character is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=marks.opens_with_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return _train_bpe(tokenizer, text, vocabulary, marks, initial_alphabet=alphabet)


def _metaspace_bpe(text: Text, vocabulary: int, marks: Marks) -> Tokenizer:
    """BPE on text whose spaces are a visible mark (SentencePiece's convention)."""
    tokenizer = Tokenizer(models.BPE(unk_token=marks.unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=WORD_START, prepend_scheme="always")
    return _train_bpe(tokenizer, text, vocabulary, marks)


def _train_bpe(tokenizer: Tokenizer, text: Text, vocabulary: int, marks: Marks, **settings: Any) -> Tokenizer:
    special = marks.special
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False, **settings)
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


_FAMILIES: dict[Family, Callable[[Text, int, Marks], Tokenizer]] = {
    "wordpiece": _wordpiece,
    "byte-bpe": _byte_bpe,
    "metaspace-bpe": _metaspace_bpe,
}


TRAINING_ROWS = 1500


class MicroworldCheckpoint(BaseModel):
    """An architecture in small, randomly initialised, and a tokenizer of the microworld's training text.

    Every field is in the hash of every spec that has one, defaults too: a new one would outdate all expectations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["microworld"] = "microworld"
    architecture: Architecture
    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    max_positions: int = Field(default=128, ge=8)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    tokenizer: Family = "wordpiece"
    vocabulary: int = Field(default=1200, ge=700, description="tokens, special ones included")
    seed: int = Field(default=0, ge=0, description="of the world whose training text the tokenizer has read")

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> MicroworldCheckpoint:
        if self.hidden % self.heads:
            raise ValueError(f"hidden = {self.hidden} is not a multiple of heads = {self.heads}")
        return self

    @model_validator(mode="after")
    def _what_is_written_can_be_read(self) -> MicroworldCheckpoint:
        if ARCHITECTURES[self.architecture].writes and self.tokenizer == "wordpiece":
            raise ValueError(
                f"architecture = {self.architecture} writes text, and wordpiece does not give it back as it was: "
                f"set tokenizer to metaspace-bpe or byte-bpe"
            )
        return self


def microworld_tokenizer(checkpoint: MicroworldCheckpoint) -> PreTrainedTokenizerFast:
    """A fast tokenizer with the architecture's own marks, such as BERT's `[CLS] a [SEP] b [SEP]` or T5's `a </s>`.

    Raises:
        SourceError: the microworld lacks a column that it reads.
    """
    architecture = ARCHITECTURES[checkpoint.architecture]
    trained = _trained(
        checkpoint.tokenizer, checkpoint.vocabulary, architecture.marks, architecture.reads, checkpoint.seed
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(trained),
        model_max_length=checkpoint.max_positions,
        model_input_names=list(architecture.inputs),
        **dict(architecture.marks.tokens),
    )


@cache
def training_text(columns: tuple[str, ...], seed: int) -> tuple[str, ...]:
    """What a tokenizer learns from: these columns of the training split's first rows."""
    data = MicroworldData(train=TRAINING_ROWS, validation=1, seed=seed)
    rows = microworld_examples(data, "train", columns=columns)
    return tuple(row[column] for row in rows for column in columns)


@cache
def _trained(family: Family, vocabulary: int, marks: Marks, reads: tuple[str, ...], seed: int) -> str:
    return str(train_tokenizer(family, training_text(reads, seed), vocabulary=vocabulary, marks=marks).to_str())


def microworld_config(checkpoint: MicroworldCheckpoint, **overrides: Any) -> PreTrainedConfig:
    """The architecture's config in the declared size."""
    vocabulary = len(microworld_tokenizer(checkpoint))
    return small_config(checkpoint.architecture, checkpoint, vocabulary=vocabulary, **overrides)


def microworld_model(checkpoint: MicroworldCheckpoint, auto_class: Any, **config: Any) -> PreTrainedModel:
    """A model of random weights, drawn from torch's global generator."""
    made: PreTrainedModel = auto_class.from_config(microworld_config(checkpoint, **config), dtype=torch.float32)
    return made
