"""Tiny models from a config, with a tokenizer trained on the microworld: a checkpoint that any machine can make,
offline.

Nothing is pretrained and nothing is stored: the tokenizer is trained in well under a second, the same everywhere.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    DistilBertConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from reference.sources.microworld import document
from reference.sources.microworld.english import running_text

PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORD_START = "▁"
TRAINING_DOCUMENTS = 1500

Architecture = Literal["bert", "distilbert", "modernbert"]
"""`modernbert` (rotary positions, local attention) learns masked language modeling within a few hundred steps. The
others, with learned absolute positions, take more than a thousand before they use their neighbours at all."""
Family = Literal["wordpiece", "byte-bpe", "metaspace-bpe"]


class MicroworldCheckpoint(BaseModel):
    """An architecture in small, randomly initialised, and a tokenizer of the microworld's training text."""

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


def microworld_tokenizer(checkpoint: MicroworldCheckpoint) -> PreTrainedTokenizerFast:
    """A fast tokenizer as the architecture's own: `[CLS] a [SEP]`, `[CLS] a [SEP] b [SEP]`."""
    trained = Tokenizer.from_str(_trained(checkpoint.tokenizer, checkpoint.vocabulary, checkpoint.seed))
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=trained,
        model_max_length=checkpoint.max_positions,
        model_input_names=[*inputs, "token_type_ids"] if checkpoint.architecture == "bert" else inputs,
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=MASK,
    )


@cache
def training_text(seed: int) -> tuple[str, ...]:
    """What a tokenizer learns from: the first documents of the training split."""
    return tuple(running_text(document(index, seed=seed, split="train")) for index in range(TRAINING_DOCUMENTS))


@cache
def _trained(family: Family, vocabulary: int, seed: int) -> str:
    tokenizer = {"wordpiece": _wordpiece, "byte-bpe": _byte_bpe, "metaspace-bpe": _metaspace_bpe}[family](
        vocabulary, seed
    )
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS}:0 $A:0 {SEP}:0",
        pair=f"{CLS}:0 $A:0 {SEP}:0 $B:1 {SEP}:1",
        special_tokens=[(CLS, ids[CLS]), (SEP, ids[SEP])],
    )
    return str(tokenizer.to_str())


def _wordpiece(vocabulary: int, seed: int) -> Tokenizer:
    """BERT's WordPiece, cased.

    The vocabulary is that of a BPE trained on words that begin with a mark: with the mark it opens a word, without it
    it continues one. (The library's WordPieceTrainer numbers characters in the order of a hash map, so that two
    trainings differ.)
    """
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    words = pre_tokenizers.BertPreTokenizer()
    bpe = Tokenizer(models.BPE(unk_token=UNK))
    bpe.normalizer = normalizer
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always")]
    )
    characters = _characters(words, training_text(seed))
    bpe.train_from_iterator(training_text(seed), trainers.BpeTrainer(vocab_size=2 * vocabulary, show_progress=False))
    ranked = sorted(bpe.get_vocab().items(), key=lambda entry: entry[1])
    merged = (_piece(token) for token, _ in ranked if len(token) > 1)
    pieces = list(dict.fromkeys([*characters, *merged]))[: vocabulary - len(SPECIAL)]
    vocab = {token: index for index, token in enumerate([*SPECIAL, *pieces])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=UNK, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _characters(words: pre_tokenizers.PreTokenizer, text: tuple[str, ...]) -> list[str]:
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


def _byte_bpe(vocabulary: int, seed: int) -> Tokenizer:
    """Byte-level BPE (GPT-2, RoBERTa): no character is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return _train_bpe(tokenizer, vocabulary, seed=seed, initial_alphabet=alphabet)


def _metaspace_bpe(vocabulary: int, seed: int) -> Tokenizer:
    """BPE on text whose spaces are a visible mark (SentencePiece's convention)."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=WORD_START, prepend_scheme="always")
    return _train_bpe(tokenizer, vocabulary, seed=seed)


def _train_bpe(tokenizer: Tokenizer, vocabulary: int, *, seed: int, **settings: Any) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False, **settings)
    tokenizer.train_from_iterator(training_text(seed), trainer)
    return tokenizer


def microworld_config(checkpoint: MicroworldCheckpoint, *, vocabulary: int, **overrides: Any) -> PreTrainedConfig:
    """The architecture's config in the declared size."""
    shared: dict[str, Any] = {
        "vocab_size": vocabulary,
        "max_position_embeddings": checkpoint.max_positions,
        "pad_token_id": SPECIAL.index(PAD),
        # BERT's 0.02 at width 768, scaled so that a layer's output varies as much: tiny models learn sooner.
        "initializer_range": 0.02 * (768 / checkpoint.hidden) ** 0.5,
    }
    sizes: dict[str, Any]
    match checkpoint.architecture:
        case "bert":
            sizes = {
                "hidden_size": checkpoint.hidden,
                "num_hidden_layers": checkpoint.layers,
                "num_attention_heads": checkpoint.heads,
                "intermediate_size": 4 * checkpoint.hidden,
                "hidden_dropout_prob": checkpoint.dropout,
                "attention_probs_dropout_prob": checkpoint.dropout,
            }
            return BertConfig(**shared | sizes | overrides)
        case "distilbert":
            sizes = {
                "dim": checkpoint.hidden,
                "n_layers": checkpoint.layers,
                "n_heads": checkpoint.heads,
                "hidden_dim": 4 * checkpoint.hidden,
                "dropout": checkpoint.dropout,
                "attention_dropout": checkpoint.dropout,
            }
            return DistilBertConfig(**shared | sizes | overrides)
        case "modernbert":
            sizes = {
                "hidden_size": checkpoint.hidden,
                "num_hidden_layers": checkpoint.layers,
                "num_attention_heads": checkpoint.heads,
                "intermediate_size": 2 * checkpoint.hidden,  # gated: as many weights as 3 * hidden without a gate
                # What matters in a short text is near: the first layer sees 4 tokens to either side,
                # and positions turn fast.
                "layer_types": ["sliding_attention"] + ["full_attention"] * (checkpoint.layers - 1),
                "local_attention": 8,
                "rope_parameters": {
                    kind: {"rope_type": "default", "rope_theta": 100.0}
                    for kind in ("sliding_attention", "full_attention")
                },
                "embedding_dropout": checkpoint.dropout,
                "mlp_dropout": checkpoint.dropout,
                "attention_dropout": checkpoint.dropout,
                "classifier_dropout": checkpoint.dropout,
                "bos_token_id": SPECIAL.index(CLS),
                "eos_token_id": SPECIAL.index(SEP),
                "cls_token_id": SPECIAL.index(CLS),
                "sep_token_id": SPECIAL.index(SEP),
            }
            return ModernBertConfig(**shared | sizes | overrides)


def microworld_model(checkpoint: MicroworldCheckpoint, auto_class: Any, **config: Any) -> PreTrainedModel:
    """A model of random weights, drawn from torch's global generator."""
    vocabulary = len(microworld_tokenizer(checkpoint))
    made = auto_class.from_config(microworld_config(checkpoint, vocabulary=vocabulary, **config), dtype=torch.float32)
    assert isinstance(made, PreTrainedModel)
    return made
