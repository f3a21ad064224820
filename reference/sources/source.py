"""What a pipeline asks of the place its data and checkpoint come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import datasets
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

if TYPE_CHECKING:  # it takes seconds to import: only those who make a model pay
    from transformers import PreTrainedModel


class SourceError(Exception):
    """Data or checkpoint cannot be had as asked: says what was asked of whom, and what to do about it."""


@dataclass(frozen=True)
class Access:
    """Where to look on this machine. Changes where bytes come from, never what is measured, and so is in no hash.

    Attributes:
        mirror: a folder of snapshots laid out by hub id (`datasets/ORG/NAME`, `models/ORG/NAME`), asked instead of
            the hub.
        dataset: a folder or file that is read instead of the declared data.
        checkpoint: a folder that is read instead of the declared checkpoint.
    """

    mirror: Path | None = None
    dataset: Path | None = None
    checkpoint: Path | None = None


class Source(Protocol):
    """A data set in named splits, with the checkpoint that belongs to it.

    A source knows no task: the pipeline names the columns it wants (`words`, `tags`, `text` ...), the source maps its
    own column names onto them.
    """

    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        """The rows of `train` or `validation`, with exactly these columns.

        Raises:
            SourceError: no such split or column, a label out of its ClassLabel's range, nobody answers.
        """
        ...

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, which may be a slow one: who needs `word_ids` asks for `is_fast`."""
        ...

    def config(self) -> PreTrainedConfig:
        """The model's config as declared: what must be known of the model before there is one."""
        ...

    def model(self, auto_class: Any, **config: Any) -> PreTrainedModel:
        """`auto_class` (such as `AutoModelForMaskedLM`) in float32, pretrained or from its config as declared.

        Weights that start untrained (heads, or all of them) are drawn from torch's global generator: the caller seeds
        it. `config` overrides entries of the model's config (`num_labels`, `id2label` ...).
        """
        ...
