"""Data sets of the Hugging Face hub, of a mirror of it, or in the user's own files.

Every data set is read from a folder: the folder of a mirror, or the folder in the hub's cache that the pinned revision
was downloaded to. So a mirror and the hub are read in the same way, and an offline run reads the pinned revision or
fails.
`datasets.load_dataset` with a hub id would read any cached revision if the hub does not answer (datasets 5.2,
`CachedDatasetModuleFactory`). It would also prepare every split of a folder, where a run needs one or two.
"""

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
from pydantic import Field, model_validator

from touchstone.fields import FrozenModel
from touchstone.sources.normalization import column_names, contract_columns, ordered_tags, tag_strings
from touchstone.sources.source import Access, SourceError

Kind = Literal["dataset", "model"]
NOWHERE = "none"
"""The revision of a repository that is not on the hub, only in a mirror or in a folder."""
BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
"""File name ending to the builder of `datasets` that reads it, the preferred first."""
NOT_DATA = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
ALIASES = {"dev": "validation", "val": "validation", "valid": "validation"}
REMEDY: dict[Kind, str] = {
    "dataset": "Give a folder of snapshots with --mirror DIR (DIR/datasets/ORG/NAME), "
    "or the data itself with --dataset TASK=PATH",
    "model": "Give a folder of snapshots with --mirror DIR (DIR/models/ORG/NAME), "
    "or the checkpoint itself with --checkpoint TASK=PATH",
}


class HubData(FrozenModel):
    """A data set at a pinned revision, with the splits, columns and rows to use."""

    source: Literal["hub"] = "hub"
    id: str = Field(min_length=1, description="ORG/NAME")
    revision: str = Field(
        min_length=1, description="commit, tag, or reference such as refs/convert/parquet; `none` if not on the hub"
    )
    config: str | None = Field(default=None, description="the folder of one of several configurations")
    columns: dict[str, str] = Field(
        default={},
        description="contract column (words, tags, text ...) to data set column, by default the same name; "
        "`translation.en` is the field `en` of the column `translation`",
    )
    tag_names: tuple[str, ...] | None = Field(
        default=None, description="names of the label ids, if the data does not have them"
    )
    validation_id: str | None = Field(
        default=None,
        min_length=1,
        exclude_if=lambda value: value is None,  # so that it is not in the hash of specs without it
        description="ORG/NAME of the validation split, if it is in another repository",
    )
    validation_revision: str | None = Field(default=None, min_length=1, exclude_if=lambda value: value is None)
    train_split: str = "train"
    validation_split: str = Field(
        default="validation", description="may be the train split if the pipeline divides it later"
    )
    validation_fraction: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="hold out this part of the train split instead of reading a validation split",
    )
    train_rows: int | None = Field(default=None, gt=0, description="draw this many with the seed; by default all")
    validation_rows: int | None = Field(default=None, gt=0)
    seed: int = Field(
        default=42, ge=0, description="draws the rows and the validation_fraction; independent of the seed of a run"
    )

    @model_validator(mode="after")
    def _one_way_to_validate(self) -> HubData:
        # Compares with the default because a dump sets every field.
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
                f"with validation_id, validation_split cannot be {self.train_split!r}, the train split: give another"
            )
        return self

    @property
    def repositories(self) -> dict[str, tuple[str, str]]:
        """Split, as the data set names it, to the id and revision of its repository."""
        here = {self.train_split: (self.id, self.revision), self.validation_split: (self.id, self.revision)}
        if self.validation_id is not None and self.validation_revision is not None:
            here[self.validation_split] = (self.validation_id, self.validation_revision)
        return here

    @classmethod
    def of_folder(cls, path: Path) -> HubData:
        """Return settings for a folder or file whose splits and columns have the names of the contract."""
        return cls(id=path.name, revision=NOWHERE)


def hub_examples(data: HubData, split: str, *, columns: tuple[str, ...], access: Access) -> datasets.Dataset:
    """Return the rows of `train` or `validation` with exactly these columns, `tags` as lists of `ClassLabel`.

    `validation_fraction` divides like `train_test_split(test_size=fraction, seed=seed)` and rows are drawn like
    `shuffle(seed=seed).select(range(n))`, so a user of `datasets` gets the same rows with one line.

    Raises:
        SourceError: see `snapshot`, `load_split` and `contract_columns`; also if the split has another name or the data
            has fewer rows than declared.
    """
    if split not in ("train", "validation"):
        raise SourceError(f"a source has no split {split!r}: it has train and validation")
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
    """The data set under its own names of splits and columns."""

    def __init__(self, data: HubData, access: Access) -> None:
        self.data = data
        self.access = access
        self._loaded: dict[str, datasets.Dataset] = {}

    def own_split(self, split: str) -> str:
        if split == "train" or self.data.validation_fraction is not None:
            return self.data.train_split
        own = self.data.validation_split
        if self.access.dataset is not None and own not in ("train", "validation"):
            with suppress(SourceError):  # the user's own data may also have the contract's name
                self.load("validation")
                return "validation"
        return own

    def load(self, own_split: str) -> datasets.Dataset:
        if own_split not in self._loaded:
            self._loaded[own_split] = load_split(self._folder(own_split), split=own_split, config=self.data.config)
        return self._loaded[own_split]

    def own_column(self, column: str, *, split: str) -> str:
        """Return the data set's name of a contract column. The user's own data may also have the contract's name."""
        own = self.data.columns.get(column, column)
        if self.access.dataset is not None and own not in (there := column_names(self.load(split))) and column in there:
            return column
        return own

    def tag_names(self, column: str | None, *, own_split: str) -> tuple[str, ...] | None:
        """Return the declared names, or the tag strings of both splits, so that both splits get the same ids."""
        if self.data.tag_names is not None or column is None:
            return self.data.tag_names
        here = tag_strings(self.load(own_split), column=column)
        if here is None:
            return None
        there: set[str] = set()
        for split in {self.own_split("train"), self.own_split("validation")} - {own_split}:
            with suppress(SourceError):  # a missing split is an error when it is read
                there |= tag_strings(self.load(split), column=column) or set()
        return tuple(ordered_tags(here | there))

    def where(self, own_split: str) -> str:
        name = self.access.dataset if self.access.dataset is not None else self.data.repositories[own_split][0]
        return f"{name}, split {own_split}"

    def _folder(self, own_split: str) -> Path:
        """Return the folder or file of a split. It also has the other split if both are in one repository."""
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


# Files


def load_split(path: Path, *, split: str, config: str | None = None) -> datasets.Dataset:
    """Return the rows of a split of a folder or file: parquet, JSON, JSON lines, CSV, or saved by `save_to_disk`.

    A single file is the split in its name (`validation.jsonl`), or `train` if its name is not the name of a split. In
    a folder, at any depth, a split is the files `SPLIT.EXT`, `SPLIT-00000-of-00002.EXT` or `SPLIT/0000.EXT`. `dev`,
    `val` and `valid` are `validation`. If the folder has a subfolder `config`, only files below that are read.

    Raises:
        SourceError: the path or the split does not exist (the message names the splits found), the split is in several
            folders, or a file cannot be read.
    """
    if not path.exists():
        raise SourceError(f"{path} does not exist: check the path of the data")
    if path.is_dir() and any((path / name).exists() for name in ("dataset_dict.json", "state.json")):
        return _saved_split(path, split=split)
    splits = find_splits(path, config=config)
    if split not in splits:
        raise SourceError(f"{path} has no split {split!r}: {_found(path, splits)}")
    files = splits[split]
    if len(folders := {file.parent for file in files}) > 1:
        names = ", ".join(sorted(str(folder.relative_to(path)) for folder in folders))
        raise SourceError(
            f"split {split!r} of {path} is in several folders ({names}): name one with `config` in the data settings"
        )
    try:
        return datasets.load_dataset(
            BUILDERS[files[0].suffix], data_files={split: [str(file) for file in files]}, split=split
        )
    except StopIteration as error:  # raised by the JSON reader for files without rows
        raise SourceError(f"{', '.join(map(str, files))} has no rows") from error
    except (DatasetsError, pa.ArrowException, OSError, ValueError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise SourceError(
            f"{', '.join(map(str, files))} cannot be read as {BUILDERS[files[0].suffix]}: {reason}"
        ) from error


def find_splits(path: Path, *, config: str | None = None) -> dict[str, list[Path]]:
    """Return split name to its files, in order. All files of a split have one format."""
    if path.is_file():
        if path.suffix not in BUILDERS:
            raise SourceError(f"{path} is not a {', '.join(BUILDERS)} file: convert it to one of them")
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
    """Return `train` for `train-00000-of-00002.parquet` and for `train/0000.parquet`."""
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


def _found(path: Path, splits: dict[str, list[Path]]) -> str:
    if splits:
        return f"it has {', '.join(sorted(splits))}"
    if scripts := sorted(path.glob("*.py")) if path.is_dir() else []:
        return (
            f"it has the loading script {scripts[0].name}, but scripts are not run; "
            f"try revision refs/convert/parquet, or parquet files"
        )
    return f"it has no {', '.join(BUILDERS)} file"


# The hub


def snapshot(
    repository: str,
    *,
    kind: Kind,
    revision: str,
    mirror: Path | None,
    patterns: list[str],
    ignore: list[str] | None = None,
) -> Path:
    """Return the folder of a repository at a revision, with the files that match `patterns` and not `ignore`.

    Raises:
        SourceError: the mirror does not have the folder; the revision is `NOWHERE` and no mirror is given; the hub does
            not answer and the cache does not have the revision; the repository or revision does not exist, or needs a
            permission.
    """
    if mirror is not None:
        folder = mirror / f"{kind}s" / repository
        if not folder.is_dir():
            raise SourceError(f"the mirror has no {kind} {repository}: add the folder {folder}")
        return folder
    if revision == NOWHERE:
        raise SourceError(f"{kind} {repository} is not on the hub. {REMEDY[kind]}")
    what = f"{kind} {repository} at revision {revision}"
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, repo_type=kind, revision=revision, allow_patterns=patterns, ignore_patterns=ignore
            )
        )
    except GatedRepoError as error:
        raise SourceError(f"{what} is gated: request access on its page, then log in with `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise SourceError(
            f"the hub has no {kind} {repository}, or it is private: check the id, or log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise SourceError(
            f"{kind} {repository} has no revision {revision}: check the commit, tag or reference"
        ) from error
    except HFValidationError as error:
        raise SourceError(f"{repository!r} is not a hub id (ORG/NAME): {error}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise SourceError(
            f"{_no_answer()}, and {what} is not in the cache {huggingface_hub.constants.HF_HUB_CACHE}. {REMEDY[kind]}"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise SourceError(f"{what} could not be downloaded: {str(error).splitlines()[0]}. {REMEDY[kind]}") from error


def _no_answer() -> str:
    if huggingface_hub.constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    return f"the hub does not answer ({huggingface_hub.constants.ENDPOINT})"
