"""Where data and checkpoints come from: `open_source` takes a spec's declarations and says where to look."""

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
from touchstone.sources.fingerprints import fingerprint
from touchstone.sources.hub import HubData, hub_examples
from touchstone.sources.installed import InstalledCode, installed_examples
from touchstone.sources.pretrained import HubCheckpoint, hub_config, hub_model, hub_tokenizer
from touchstone.sources.source import Access, Source, SourceError

if TYPE_CHECKING:  # it takes seconds to import: only those who make a model pay
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

DataSettings = Annotated[MicroworldData | HubData | InstalledCode, Field(discriminator="source")]
"""A spec's `[data]`: `source` says which."""
CheckpointSettings = Annotated[MicroworldCheckpoint | HubCheckpoint, Field(discriminator="source")]
"""A spec's `[checkpoint]`: `source` says which."""


@dataclass(frozen=True)
class _Opened:
    """A `Source`: data from one place, checkpoint from another or the same."""

    data: MicroworldData | HubData | InstalledCode
    checkpoint: MicroworldCheckpoint | HubCheckpoint
    access: Access = field(default_factory=Access)

    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        own = self.access.dataset
        match self.data:
            case HubData() as data:
                return hub_examples(data, split, columns=columns, access=self.access)
            case MicroworldData() | InstalledCode() if own is not None:  # one's own: all rows, the contract's names
                return hub_examples(HubData.of_folder(own), split, columns=columns, access=self.access)
            case MicroworldData() as data:
                return embedded_examples(data, split, columns=columns)
            case InstalledCode() as data:
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

    def _checkpoint(self) -> MicroworldCheckpoint | HubCheckpoint:
        if isinstance(self.checkpoint, MicroworldCheckpoint) and self.access.checkpoint is not None:
            return HubCheckpoint.of_folder(self.access.checkpoint)
        return self.checkpoint


def open_source(
    data: MicroworldData | HubData | InstalledCode,
    checkpoint: MicroworldCheckpoint | HubCheckpoint,
    *,
    access: Access | None = None,
) -> Source:
    """A source as a spec declares it. Nothing is read before it is asked for.

    Paths in `access` win over the declared ids: its `dataset` and `checkpoint` are read whatever is declared, under
    the declared columns and splits where the declaration has them.
    """
    return _Opened(data, checkpoint, access or Access())
