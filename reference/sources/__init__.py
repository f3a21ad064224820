"""Data sets and checkpoints. `open_source` opens what a spec declares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import datasets
from pydantic import Field
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from touchstone.sources.checkpoints import (
    MicroworldCheckpoint,
    microworld_config,
    microworld_model,
    microworld_tokenizer,
)
from touchstone.sources.embedded import MicroworldData, embedded_examples
from touchstone.sources.hub import HubData, hub_examples
from touchstone.sources.installed import InstalledCode, installed_examples
from touchstone.sources.normalization import fingerprint
from touchstone.sources.pretrained import HubCheckpoint, hub_config, hub_model, hub_tokenizer
from touchstone.sources.source import Access, Source, SourceError

if TYPE_CHECKING:  # importing it takes seconds, and only callers that make a model need it
    from transformers import PreTrainedModel

__all__ = [
    "Access",
    "CheckpointSettings",
    "DataSettings",
    "HubCheckpoint",
    "HubData",
    "InstalledCode",
    "MicroworldCheckpoint",
    "MicroworldData",
    "Source",
    "SourceError",
    "fingerprint",
    "open_source",
]

Data = MicroworldData | HubData | InstalledCode
Checkpoint = MicroworldCheckpoint | HubCheckpoint
DataSettings = Annotated[Data, Field(discriminator="source")]
"""The table `data` of a spec. Its key `source` selects the class."""
CheckpointSettings = Annotated[Checkpoint, Field(discriminator="source")]
"""The table `checkpoint` of a spec. Its key `source` selects the class."""


def open_source(data: Data, checkpoint: Checkpoint, *, access: Access | None = None) -> Source:
    """Return the source that a spec declares. Nothing is read until it is needed.

    The paths in `access` win over the declared ids. Its `dataset` and `checkpoint` are read whatever is declared, with
    the declared columns and splits if the declaration has any.
    """
    return _Opened(data, checkpoint, access or Access())


@dataclass(frozen=True)
class _Opened:
    """A `Source` that takes its data from one place and its checkpoint from the same place or another."""

    data: Data
    checkpoint: Checkpoint
    access: Access = field(default_factory=Access)

    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        data = self.data
        if self.access.dataset is not None and not isinstance(data, HubData):
            data = HubData.of_folder(self.access.dataset)
        match data:
            case HubData():
                return hub_examples(data, split, columns=columns, access=self.access)
            case MicroworldData():
                return embedded_examples(data, split, columns=columns)
            case InstalledCode():
                return installed_examples(data, split, columns=columns)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        match self._checkpoint():
            case MicroworldCheckpoint() as checkpoint:
                return microworld_tokenizer(checkpoint)
            case HubCheckpoint() as checkpoint:
                return hub_tokenizer(checkpoint, access=self.access)

    def config(self) -> PreTrainedConfig:
        match self._checkpoint():
            case MicroworldCheckpoint() as checkpoint:
                return microworld_config(checkpoint)
            case HubCheckpoint() as checkpoint:
                return hub_config(checkpoint, access=self.access)

    def model(self, auto_class: Any, **config: Any) -> PreTrainedModel:
        match self._checkpoint():
            case MicroworldCheckpoint() as checkpoint:
                return microworld_model(checkpoint, auto_class, **config)
            case HubCheckpoint() as checkpoint:
                return hub_model(checkpoint, auto_class, access=self.access, **config)

    def _checkpoint(self) -> Checkpoint:
        if self.access.checkpoint is not None and isinstance(self.checkpoint, MicroworldCheckpoint):
            return HubCheckpoint.of_folder(self.access.checkpoint)
        return self.checkpoint
