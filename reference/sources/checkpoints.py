"""Tiny models from a config, with a tokenizer trained on the microworld: a checkpoint that any machine can make,
offline.

Nothing is pretrained and nothing is stored: the tokenizer is trained in well under a second, the same everywhere.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tokenizers import Tokenizer
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from reference.sources.architectures import ARCHITECTURES, Architecture, Marks, small_config
from reference.sources.microworld import MicroworldData, microworld_examples
from reference.sources.tokenizer_training import Family, train_tokenizer

if TYPE_CHECKING:  # it takes seconds to import: only those who make a model pay
    from transformers import PreTrainedModel

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
