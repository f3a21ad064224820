"""JSON files on disk: written whole, read within bounds, validated against a pydantic model."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from touchstone.fields import key_names, validation_problems

MAX_BYTES = 32 * 2**20
"""The largest file that is read. A record of 65,000 steps (the course's longest recipe) has 1 MB."""
Stored = TypeVar("Stored", bound=BaseModel)


class RecordError(Exception):
    """A record cannot be written or read. The message names the file, the key and the remedy."""


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 text file so that a reader sees either the old content or the new one, never a part.

    The text goes to a temporary file in the same directory, is flushed to the disk, and is renamed into place.

    Raises:
        OSError: the file could not be written. The old file is unchanged, and no temporary file is left.
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
    with contextlib.suppress(OSError):  # some file systems cannot sync a directory; the content is safe by now
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def write_json(record: BaseModel, path: Path) -> Path:
    """Write a record as JSON, atomically, and return its path.

    Raises:
        RecordError: it cannot be written (a full disk, a read-only folder). A file that was there is unchanged.
    """
    try:
        write_atomically(path, record.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be written ({error.strerror}): free space or choose another folder"
        ) from error
    return path


def read_bytes(path: Path, *, kind: str) -> bytes:
    """Return the content of a file.

    Args:
        kind: what the file should be, such as "record", for the error message.

    Raises:
        RecordError: there is no such file, or it is larger than `MAX_BYTES`.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise RecordError(f"{path}: is larger than {MAX_BYTES // 2**20} MiB: it cannot be a {kind}")
    return raw


def parse_json(model: type[Stored], raw: bytes, *, path: Path) -> Stored:
    """Return the record that the content of `path` describes.

    Raises:
        RecordError: not JSON of this schema, an unknown or missing key, a value out of range.
    """
    try:
        return model.model_validate_json(raw, strict=True)
    except ValidationError as error:
        problems = validation_problems(error, where=str(path), known=key_names(model))
        raise RecordError("\n".join(problems)) from error


def schema_of(model: type[BaseModel]) -> str:
    """Return the JSON Schema of a record, as the repository keeps it."""
    schema = model.model_json_schema(mode="serialization")
    with_dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(with_dialect, indent=2, sort_keys=True) + "\n"
