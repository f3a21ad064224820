"""Data sets of the Hugging Face hub, of a mirror of it, or in files of one's own."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

import datasets
import huggingface_hub
import pyarrow as pa
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pydantic import BaseModel, ConfigDict, Field, model_validator

from touchstone.sources.normalization import column_names, contract_columns, ordered_tags, tag_strings
from touchstone.sources.source import Access, SourceError

# Finds the folder that holds a hub repository: under a mirror, or downloaded into the hub's cache. Everything is
# then read from that folder, so that a mirror and the hub go one way, and an offline run reads the pinned revision
# or nothing. (`datasets.load_dataset` by id takes whatever revision is cached when the hub does not answer:
# datasets 5.2, `CachedDatasetModuleFactory`.)


Kind = Literal["dataset", "model"]
NOWHERE = "none"
"""The revision of what is on no hub, only in a mirror or in a folder of one's own."""


def snapshot(
    repository: str,
    *,
    kind: Kind,
    revision: str,
    mirror: Path | None,
    patterns: list[str],
    ignore: list[str] | None = None,
) -> Path:
    """The folder of a repository at a revision; the files that match `patterns` and not `ignore` are there.

    Raises:
        SourceError: the mirror has no such folder, the revision is `NOWHERE` and there is no mirror, the hub does not
            answer and the cache has no such revision, no such repository or revision, no permission.
    """
    if mirror is not None:
        folder = mirror / f"{kind}s" / repository
        if not folder.is_dir():
            raise SourceError(f"the mirror has no {kind} {repository}: there is no folder {folder}")
        return folder
    if revision == NOWHERE:
        raise SourceError(f"{kind} {repository} is on no hub. {REMEDY[kind]}")
    what = f"{kind} {repository} at revision {revision}"
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, repo_type=kind, revision=revision, allow_patterns=patterns, ignore_patterns=ignore
            )
        )
    except GatedRepoError as error:
        raise SourceError(f"{what} is gated: ask for access on its page, then log in with `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise SourceError(
            f"the hub has no {kind} {repository}, or it is private: check the id, or log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise SourceError(f"{kind} {repository} has no revision {revision}") from error
    except HFValidationError as error:
        raise SourceError(f"{repository!r} is no hub id (ORG/NAME): {error}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise SourceError(
            f"{_silence()} and {what} is not in the cache {huggingface_hub.constants.HF_HUB_CACHE}. {REMEDY[kind]}"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise SourceError(f"{what} could not be downloaded: {str(error).splitlines()[0]}. {REMEDY[kind]}") from error


REMEDY: dict[Kind, str] = {
    "dataset": "Give a folder of snapshots with --mirror DIR (DIR/datasets/ORG/NAME), "
    "or the data itself with --dataset TASK=PATH",
    "model": "Give a folder of snapshots with --mirror DIR (DIR/models/ORG/NAME), "
    "or the checkpoint itself with --checkpoint TASK=PATH",
}


def _silence() -> str:
    if huggingface_hub.constants.is_offline_mode():
        return "the hub may not be asked (HF_HUB_OFFLINE is set)"
    return f"the hub does not answer ({huggingface_hub.constants.ENDPOINT})"


# Reads one split of a data set from a folder or a file: parquet, JSON, JSON lines, CSV, or what `save_to_disk`
# wrote.


BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
"""File name ending to the builder of `datasets` that reads it, the preferred first."""
NOT_DATA = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
ALIASES = {"dev": "validation", "val": "validation", "valid": "validation"}


def load_split(path: Path, *, split: str, config: str | None = None) -> datasets.Dataset:
    """The rows of `split`.

    A file is a split of its own name (`train.jsonl`), and where its name says nothing, `train`. In a folder, at any
    depth, a split is the files called `SPLIT.EXT`, `SPLIT-00000-of-00002.EXT`, or `SPLIT/0000.EXT`; `dev`, `val` and
    `valid` are `validation`. Where the folder has a subfolder called `config`, only files below that count.

    Raises:
        SourceError: nothing there, no such split (the message names those found), two configurations, a file that
            cannot be read.
    """
    if not path.exists():
        raise SourceError(f"there is no data at {path}")
    if path.is_dir() and any((path / name).exists() for name in ("dataset_dict.json", "state.json")):
        return _saved_split(path, split=split)
    splits = find_splits(path, config=config)
    if split not in splits:
        raise SourceError(f"{path} has no split {split!r}: {_what_is_there(path, splits)}")
    files = splits[split]
    if len(folders := {file.parent for file in files}) > 1:
        names = ", ".join(sorted(str(folder.relative_to(path)) for folder in folders))
        raise SourceError(
            f"split {split!r} of {path} is in several folders ({names}): say which with `config` in the data settings"
        )
    try:
        return datasets.load_dataset(
            BUILDERS[files[0].suffix], data_files={split: [str(file) for file in files]}, split=split
        )
    except StopIteration as error:  # the JSON reader, of files without a row
        raise SourceError(f"{', '.join(map(str, files))} has no rows") from error
    except (DatasetsError, pa.ArrowException, OSError, ValueError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise SourceError(
            f"{', '.join(map(str, files))} cannot be read as {BUILDERS[files[0].suffix]}: {reason}"
        ) from error


def find_splits(path: Path, *, config: str | None = None) -> dict[str, list[Path]]:
    """Split name to its files, in order, all of one format."""
    if path.is_file():
        if path.suffix not in BUILDERS:
            raise SourceError(f"{path} is none of {', '.join(BUILDERS)}")
        name = _split_name(path)
        return {name if name in ("train", "validation", "test") else "train": [path]}
    files = [file for file in sorted(path.rglob("*")) if file.suffix in BUILDERS and file.name not in NOT_DATA]
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if config is not None:
        files = [file for file in files if config in file.relative_to(path).parts[:-1]] or files
    splits: dict[str, list[Path]] = {}
    for suffix in BUILDERS:
        found: dict[str, list[Path]] = {}
        for file in files:
            if file.suffix == suffix:
                found.setdefault(_split_name(file), []).append(file)
        splits = found | splits
    return splits


def _split_name(file: Path) -> str:
    """`train-00000-of-00002.parquet` and `train/0000.parquet` are both `train`."""
    name = re.split(r"[-.]", file.stem)[0]
    name = file.parent.name if name.isdigit() else name
    return ALIASES.get(name, name)


def _saved_split(path: Path, *, split: str) -> datasets.Dataset:
    try:
        saved = datasets.load_from_disk(str(path))
    except (DatasetsError, pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise SourceError(f"{path} was written by save_to_disk but cannot be read: {error}") from error
    splits = saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
    if split not in splits:
        raise SourceError(f"{path} has no split {split!r}: it has {', '.join(splits)}")
    return splits[split]


def _what_is_there(path: Path, splits: dict[str, list[Path]]) -> str:
    if splits:
        return f"it has {', '.join(sorted(splits))}"
    if scripts := sorted(path.glob("*.py")) if path.is_dir() else []:
        return (
            f"it has the loading script {scripts[0].name}, and scripts are not run; "
            f"try revision refs/convert/parquet, or parquet files"
        )
    return f"it holds no {', '.join(BUILDERS)} file"


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
