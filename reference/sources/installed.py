"""Python sources of packages that are installed here: real code for causal language modelling, without a download.

What is read is what the environment has, so another version of a package is other data: rows carry the text alone, and
a record's fingerprint of them tells it. No package is imported, only its files are read.
"""

from __future__ import annotations

import importlib.util
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import datasets
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from touchstone.sources.source import SourceError
from touchstone.stages.draws import GAMMA, MASK, mix

CODE = "code"


class InstalledCode(BaseModel):
    """Which packages' files, how many, and which of them are for validation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["installed-code"] = "installed-code"
    packages: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$")], ...] = Field(
        min_length=1, description="as they are imported; the order does not matter"
    )
    validation_fraction: float = Field(default=0.1, gt=0, lt=1, description="of the files, about")
    train_files: int | None = Field(default=None, gt=0, description="this many, drawn by seed; all if not given")
    validation_files: int | None = Field(default=None, gt=0)
    largest_file: int = Field(default=100_000, gt=0, description="bytes; larger ones are mostly tables, and left out")
    seed: int = Field(default=42, ge=0, description="draws files and splits; a run's seed leaves the data alone")

    @field_validator("packages")
    @classmethod
    def _each_once(cls, packages: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := sorted({name for name in packages if packages.count(name) > 1}):
            raise ValueError(f"{repeated[0]!r} stands twice")
        return packages


def installed_examples(data: InstalledCode, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
    """One row a file, in an order drawn by the seed.

    Which split a file belongs to, and its place in the order, depend on the seed and the file's name alone (such as
    `numpy/ma/core.py`): what else is installed, and where, does not matter. Files that are empty, or no text in the
    encoding that they declare, are left out.

    Raises:
        SourceError: a split other than `train` and `validation`, a column other than `code`, a package that is not
            installed or has no Python sources, fewer files than declared.
    """
    if split not in ("train", "validation"):
        raise SourceError(f"installed code has no split {split!r}: it has train and validation")
    if unknown := [column for column in columns if column != CODE]:
        raise SourceError(f"installed code has no column {unknown[0]!r}: it has {CODE}")
    named = [file for package in data.packages for file in _files(package, largest=data.largest_file)]
    order = []
    for name, path in named:
        state = state_of("installed", data.seed, name)
        first, second = (mix((state + step * GAMMA) & MASK) for step in (1, 2))
        if split == ("validation" if first < data.validation_fraction * 2.0**64 else "train"):
            order.append((second, name, path))
    limit = data.train_files if split == "train" else data.validation_files
    texts = _first_readable([path for _, _, path in sorted(order)], limit=limit)
    if not texts or (limit is not None and len(texts) < limit):
        raise SourceError(
            f"{', '.join(data.packages)} have {len(texts)} files of at most {data.largest_file} bytes for {split}"
            + (f", but {split}_files = {limit}" if limit is not None else "")
            + ": name more packages"
        )
    return datasets.Dataset.from_dict({CODE: texts}, features=datasets.Features({CODE: datasets.Value("string")}))


def state_of(*key: int | str) -> int:
    """Return the state of the SplitMix64 generator that belongs to a key, see `touchstone.stages.draws`."""
    state = 0
    for part in key:
        state = mix((state + digest(part) + GAMMA) & MASK)
    return state


@lru_cache(2**16)
def digest(part: int | str) -> int:
    """Return 64 well-mixed bits of an integer (modulo 2**64) or of a text (its UTF-8 bytes)."""
    if isinstance(part, int):
        return mix((part + GAMMA) & MASK)
    state = 0
    for byte in part.encode("utf-8"):
        state = mix((state ^ byte) + GAMMA & MASK)
    return state


def _files(package: str, *, largest: int) -> Iterator[tuple[str, Path]]:
    """(name, path) of a package's sources, `numpy/ma/core.py` by name."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError) as error:  # a package that is half removed
        raise SourceError(f"package {package!r} cannot be found: {error}") from error
    if spec is None:
        raise SourceError(f"package {package!r} is not installed: install it, or leave it out of `packages`")
    found = []
    for folder in map(Path, spec.submodule_search_locations or ()):
        for path in folder.rglob("*.py"):
            found.append((f"{package}/{path.relative_to(folder).as_posix()}", path))
    if not found and spec.origin is not None and spec.origin.endswith(".py"):
        found.append((f"{package}.py", Path(spec.origin)))
    if not found:
        raise SourceError(f"package {package!r} has no Python sources here: leave it out of `packages`")
    return ((name, path) for name, path in found if path.is_file() and path.stat().st_size <= largest)


def _first_readable(paths: list[Path], *, limit: int | None) -> list[str]:
    texts: list[str] = []
    for path in paths:
        if len(texts) == limit:
            break
        try:
            with tokenize.open(path) as file:  # in the encoding that the file declares
                text = file.read()
        except (SyntaxError, UnicodeDecodeError):
            continue
        if text.strip():
            texts.append(text)
    return texts
