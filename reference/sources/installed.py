"""Python sources of installed packages: real code for causal language modeling, without a download.

The rows depend on the environment. Another version of a package is other data, and the fingerprint in a record shows
it. Files are read, but packages are never imported.
"""

from __future__ import annotations

import importlib.util
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import datasets
from pydantic import Field, StringConstraints, field_validator

from touchstone.fields import FrozenModel
from touchstone.sources.source import SourceError
from touchstone.stages.draws import GAMMA, MASK, mix

CODE = "code"


class InstalledCode(FrozenModel):
    """The packages to read, how many files to use, and how many of them for validation."""

    source: Literal["installed-code"] = "installed-code"
    packages: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$")], ...] = Field(
        min_length=1, description="import names, in any order"
    )
    validation_fraction: float = Field(default=0.1, gt=0, lt=1, description="of the files, approximately")
    train_files: int | None = Field(default=None, gt=0, description="draw this many with the seed; by default all")
    validation_files: int | None = Field(default=None, gt=0)
    largest_file: int = Field(
        default=100_000, gt=0, description="bytes; larger files are mostly tables and are left out"
    )
    seed: int = Field(default=42, ge=0, description="draws the files and the splits; independent of the seed of a run")

    @field_validator("packages")
    @classmethod
    def _each_once(cls, packages: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := sorted({name for name in packages if packages.count(name) > 1}):
            raise ValueError(f"packages has {repeated[0]!r} twice: remove one")
        return packages


def installed_examples(data: InstalledCode, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
    """Return one row for each file, in an order drawn with the seed.

    The split of a file and its place in the order depend only on the seed and the file's name, such as
    `numpy/ma/core.py`. Other installed packages and the place of the installation do not matter. Files that are empty
    or not text in the encoding that they declare are left out.

    Raises:
        SourceError: the split is neither `train` nor `validation`, a column is not `code`, a package is not installed
            or has no Python sources, or there are fewer files than declared.
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
            f"the packages {', '.join(data.packages)} have {len(texts)} files of at most {data.largest_file} bytes "
            f"for {split}" + (f", but {split}_files = {limit}" if limit is not None else "") + ": name more packages"
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
    """Yield (name, path) of a package's sources. A name is like `numpy/ma/core.py`."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError) as error:  # such as a package that was removed in part
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
        raise SourceError(f"package {package!r} has no Python sources: leave it out of `packages`")
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
