"""The protocol that pipelines read data and checkpoints through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import datasets
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

if TYPE_CHECKING:  # importing it takes seconds, and only callers that make a model need it
    from transformers import PreTrainedModel


class SourceError(Exception):
    """Data or a checkpoint cannot be read as declared. The message names what was declared, where, and the remedy."""


@dataclass(frozen=True)
class Access:
    """Where to look on this machine.

    Access changes where bytes come from but never what is measured, so it is not part of any hash.

    Attributes:
        mirror: a folder of snapshots laid out by hub id (`datasets/ORG/NAME`, `models/ORG/NAME`) that replaces the hub.
        dataset: a folder or file that replaces the declared data.
        checkpoint: a folder that replaces the declared checkpoint.
    """

    mirror: Path | None = None
    dataset: Path | None = None
    checkpoint: Path | None = None


class Source(Protocol):
    """A data set in named splits, with the checkpoint that belongs to it.

    A source knows nothing about tasks. The pipeline names the columns it needs (`words`, `tags`, `text` ...), and the
    source maps the column names of its data set to them.
    """

    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        """Return the rows of `train` or `validation` with exactly these columns.

        Raises:
            SourceError: the split, a column or the data set itself is missing, or a label is out of range.
        """
        ...

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer. It may be a slow one: callers that need `word_ids` check `is_fast`."""
        ...

    def config(self) -> PreTrainedConfig:
        """Return the model's config as declared, for callers that need it before a model exists."""
        ...

    def model(self, auto_class: Any, **config: Any) -> PreTrainedModel:
        """Return an `auto_class` (such as `AutoModelForMaskedLM`) in float32.

        The model is pretrained or made from its config, as declared. Untrained weights (the head, or all of them) are
        drawn from torch's global generator, which the caller seeds.

        Args:
            auto_class: one of transformers' auto classes.
            config: entries that override the model's config, such as `num_labels` and `id2label`.
        """
        ...
