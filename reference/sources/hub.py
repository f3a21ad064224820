"""Data sets of the Hugging Face hub, of a mirror of it, or in files of one's own."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

import datasets
from pydantic import BaseModel, ConfigDict, Field, model_validator

from reference.sources.normalization import column_names, contract_columns, ordered_tags, tag_strings
from reference.sources.snapshots import NOWHERE, snapshot
from reference.sources.source import Access, SourceError
from reference.sources.split_files import BUILDERS, load_split


class HubData(BaseModel):
    """A data set at a pinned revision, and which of its splits, columns and rows are meant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["hub"] = "hub"
    id: str = Field(min_length=1, description="ORG/NAME")
    revision: str = Field(
        min_length=1, description="commit, tag, or reference such as refs/convert/parquet; `none`: not on the hub"
    )
    config: str | None = Field(default=None, description="which of several configurations: a folder of the repository")
    columns: dict[str, str] = Field(
        default={},
        description="contract column (words, tags, text ...) to data set column, the same name where not given; "
        "a dot leads into a column with fields: translation.en",
    )
    tag_names: tuple[str, ...] | None = Field(
        default=None, description="names of the label ids, where the data does not say them"
    )
    validation_id: str | None = Field(
        default=None,
        min_length=1,
        exclude_if=lambda value: value is None,  # not in the hash of the specs that do without
        description="ORG/NAME of the validation split, where it lies in a repository of its own",
    )
    validation_revision: str | None = Field(default=None, min_length=1, exclude_if=lambda value: value is None)
    train_split: str = "train"
    validation_split: str = Field(
        default="validation", description="may be the train split, if the pipeline divides it later"
    )
    validation_fraction: float | None = Field(
        default=None, gt=0, lt=1, description="this part of the train split, instead of a split of its own"
    )
    train_rows: int | None = Field(default=None, gt=0, description="this many, drawn by seed; all if not given")
    validation_rows: int | None = Field(default=None, gt=0)
    seed: int = Field(
        default=42, ge=0, description="draws rows and validation_fraction; a run's seed leaves the data alone"
    )

    @model_validator(mode="after")
    def _one_way_to_validate(self) -> HubData:
        # Compared with the default, not asked whether it was given: a dump gives every field.
        default = type(self).model_fields["validation_split"].default
        if self.validation_fraction is not None and self.validation_split != default:
            raise ValueError("validation_split and validation_fraction exclude each other: give one")
        return self

    @model_validator(mode="after")
    def _another_repository_is_pinned_too(self) -> HubData:
        if (self.validation_id is None) != (self.validation_revision is None):
            raise ValueError("validation_id and validation_revision belong together: give both or neither")
        if self.validation_id is not None and self.validation_fraction is not None:
            raise ValueError("validation_id and validation_fraction exclude each other: give one")
        if self.validation_id is not None and self.validation_split == self.train_split:
            raise ValueError(
                f"with validation_id, validation_split cannot be {self.train_split!r} too: the train split"
            )
        return self

    @property
    def repositories(self) -> dict[str, tuple[str, str]]:
        """Id and revision of where each of the data's own splits lies."""
        here = {self.train_split: (self.id, self.revision), self.validation_split: (self.id, self.revision)}
        if self.validation_id is not None and self.validation_revision is not None:
            here[self.validation_split] = (self.validation_id, self.validation_revision)
        return here

    @classmethod
    def of_folder(cls, path: Path) -> HubData:
        """Data of one's own, with the contract's names for splits and columns."""
        return cls(id=path.name, revision=NOWHERE)


def hub_examples(data: HubData, split: str, *, columns: tuple[str, ...], access: Access) -> datasets.Dataset:
    """The rows of `train` or `validation` with exactly these columns, `tags` as lists of `ClassLabel`.

    `validation_fraction` divides as `train_test_split(test_size=fraction, seed=seed)` does, rows are drawn as
    `shuffle(seed=seed).select(range(n))` draws them: a user of `datasets` gets the same rows in one line.

    Raises:
        SourceError: see `snapshot`, `load_split` and `contract_columns`; another split; fewer rows than declared.
    """
    if split not in ("train", "validation"):
        raise SourceError(f"a source has the splits train and validation, not {split!r}")
    raw = _Raw(data, access)
    own_split = raw.own_split(split)
    mapping = {column: raw.own_column(column, split=own_split) for column in columns}
    rows = contract_columns(
        raw.load(own_split),
        mapping=mapping,
        tag_names=raw.tag_names(mapping.get("tags"), own_split=own_split),
        where=raw.where(own_split),
    )
    if data.validation_fraction is not None:
        parts = rows.train_test_split(test_size=data.validation_fraction, seed=data.seed)
        rows = parts["train" if split == "train" else "test"]
    limit = data.train_rows if split == "train" else data.validation_rows
    if limit is None:
        return rows
    if len(rows) < limit and access.dataset is None:
        raise SourceError(f"{raw.where(own_split)} has {len(rows)} rows, but {split}_rows = {limit}")
    return rows.shuffle(seed=data.seed).select(range(min(limit, len(rows))))


class _Raw:
    """The data set as it is, before anything is renamed."""

    def __init__(self, data: HubData, access: Access) -> None:
        self.data = data
        self.access = access
        self._loaded: dict[str, datasets.Dataset] = {}

    def own_split(self, split: str) -> str:
        if split == "train" or self.data.validation_fraction is not None:
            return self.data.train_split
        own = self.data.validation_split
        if self.access.dataset is not None and own not in ("train", "validation"):
            with suppress(SourceError):  # data of one's own may also use the contract's name
                self.load("validation")
                return "validation"
        return own

    def load(self, own_split: str) -> datasets.Dataset:
        if own_split not in self._loaded:
            self._loaded[own_split] = load_split(self._folder(own_split), split=own_split, config=self.data.config)
        return self._loaded[own_split]

    def own_column(self, column: str, *, split: str) -> str:
        """The data set's name of a contract column. Data of one's own may also use the contract's name."""
        own = self.data.columns.get(column, column)
        if self.access.dataset is not None and own not in (there := column_names(self.load(split))) and column in there:
            return column
        return own

    def tag_names(self, column: str | None, *, own_split: str) -> tuple[str, ...] | None:
        """Declared names; or, where the data spells its tags, those of both splits, so that both number them alike."""
        if self.data.tag_names is not None or column is None:
            return self.data.tag_names
        here = tag_strings(self.load(own_split), column=column)
        if here is None:
            return None
        there: set[str] = set()
        for split in {self.own_split("train"), self.own_split("validation")} - {own_split}:
            with suppress(SourceError):  # a split that is not there is an error when it is asked for
                there |= tag_strings(self.load(split), column=column) or set()
        return tuple(ordered_tags(here | there))

    def where(self, own_split: str) -> str:
        name = self.access.dataset if self.access.dataset is not None else self.data.repositories[own_split][0]
        return f"{name}, split {own_split}"

    def _folder(self, own_split: str) -> Path:
        """Where a split lies, with all others that lie there too."""
        if self.access.dataset is not None:
            return self.access.dataset
        repositories = self.data.repositories
        id, revision = repositories[own_split]
        splits = {
            other
            for other in (self.own_split("train"), self.own_split("validation"))
            if repositories[other] == (id, revision)
        }
        return snapshot(
            id,
            kind="dataset",
            revision=revision,
            mirror=self.access.mirror,
            patterns=[*sorted(f"*{split}*{suffix}" for split in splits for suffix in BUILDERS), "*.py"],
        )
