"""What all records have in common on disk: one JSON file each, written whole, read within bounds, of a known schema."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from touchstone.fields import of_validation

# Writing a file so that a reader sees the old one or the new one, whole, and nothing in between.


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text: to a temporary file in the same directory, to the disk, then renamed into place.

    Raises:
        OSError: it could not be written; what was at `path` is as it was, and no temporary file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(OSError):  # not every file system lets a directory be synced; the content is safe by now
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


MAX_BYTES = 32 * 2**20
"""A record of 65,000 steps (the longest recipe of the course) has 1 MB."""

Stored = TypeVar("Stored", bound=BaseModel)


class RecordError(Exception):
    """A record cannot be written or read: names the file, the key and the remedy."""


def write_stored(record: BaseModel, path: Path) -> Path:
    """Write it atomically.

    Raises:
        RecordError: it cannot be written (a full disk, a read-only folder). What was there is as it was.
    """
    try:
        write_atomically(path, record.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be written ({error.strerror}): free space or choose another folder"
        ) from error
    return path


def read_bytes(path: Path, *, what: str) -> bytes:
    """The whole file.

    Args:
        what: it should be.

    Raises:
        RecordError: no such file, or one that is too large.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise RecordError(f"{path}: is larger than {MAX_BYTES // 2**20} MiB: it is no {what}")
    return raw


def parse_stored(kind: type[Stored], raw: bytes, *, path: Path) -> Stored:
    """A record from the JSON that `path` held.

    Raises:
        RecordError: not JSON of this schema, an unknown or missing key, a value out of range.
    """
    try:
        return kind.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise RecordError("\n".join(of_validation(error, where=str(path), known=kind.model_fields))) from error


def schema_of(kind: type[BaseModel]) -> str:
    """The JSON Schema of such a record, as it is kept in the repository."""
    schema = kind.model_json_schema(mode="serialization")
    return (
        json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2, sort_keys=True)
        + "\n"
    )
