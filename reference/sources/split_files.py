"""Reads one split of a data set from a folder or a file: parquet, JSON, JSON lines, CSV, or what `save_to_disk`
wrote.
"""

from __future__ import annotations

import re
from pathlib import Path

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetsError

from reference.sources.source import SourceError

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
