"""Cleaning in one pass over each row."""

from collections.abc import Iterator, Sequence

from tests.independent.ignored import IGNORED


def clean_sequences(
    sequences: Sequence[Sequence[int]], *, pad_id: int, eos_id: int, start_id: int | None = None
) -> list[list[int]]:
    """See `docs/contract.md`."""
    for index, row in enumerate(sequences):
        for id in row:
            if id < 0 and id != IGNORED:
                raise ValueError(f"row {index} holds {id}")
    return [list(tokens(row, pad_id, eos_id, start_id)) for row in sequences]


def tokens(row: Sequence[int], pad_id: int, eos_id: int, start_id: int | None) -> Iterator[int]:
    """Yield the tokens of one row that are left."""
    at_start = True
    for id in row:
        if id == IGNORED:
            continue
        if not (at_start and id == start_id):
            if id == eos_id:
                return
            if id != pad_id:
                yield int(id)
        at_start = False
