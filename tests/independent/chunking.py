"""Chunking with one iterator over all tokens, which does not see where batches end."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

Columns = Mapping[str, Sequence[Sequence[Any]]]


def chunk(
    columns: Columns, *, length: int, tail: str = "drop", pad: Mapping[str, Any] | None = None
) -> dict[str, list[list[Any]]]:
    """See `docs/contract.md`."""
    return chunk_batches([columns], length=length, tail=tail, pad=pad)


def chunk_batches(
    batches: Iterable[Columns], *, length: int, tail: str = "drop", pad: Mapping[str, Any] | None = None
) -> dict[str, list[list[Any]]]:
    """See `docs/contract.md`."""
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    if tail not in ("drop", "keep", "pad"):
        raise ValueError(f"tail {tail!r} is not 'drop', 'keep' or 'pad'")
    batches = list(batches)
    names = list(batches[0]) if batches else []
    for index, batch in enumerate(batches):
        if set(batch) != set(names):
            raise ValueError(f"batch {index} has columns {sorted(batch)}, batch 0 has {sorted(names)}")
        check_congruent(batch, names)
    fill = tuple(fill_of(name, pad) if tail == "pad" else None for name in names)

    tokens = rows(batches, names)
    result: dict[str, list[list[Any]]] = {name: [] for name in names}
    while block := list(islice(tokens, length)):
        missing = length - len(block)
        if missing and tail == "drop":
            break
        if tail == "pad":
            block += [fill] * missing
        for name, cells in zip(names, zip(*block, strict=True), strict=True):
            result[name].append(list(cells))
    return result


def rows(batches: list[Columns], names: list[str]) -> Iterator[tuple[Any, ...]]:
    """Yield every token of every document as one row of cells, with shifted word ids."""
    shift = 0
    for batch in batches:
        for document in zip(*(batch[name] for name in names), strict=True):
            largest = -1
            for row in zip(*document, strict=True):
                cells = dict(zip(names, row, strict=True))
                word = cells.get("word_ids")
                if word is not None:
                    largest = max(largest, int(word))
                    cells["word_ids"] = int(word) + shift
                yield tuple(cells.values())
            shift += largest + 1


def fill_of(name: str, pad: Mapping[str, Any] | None) -> Any:
    """Return the pad value of a column, or raise ValueError."""
    if pad is None or name not in pad:
        raise ValueError(f"tail='pad' needs pad[{name!r}]")
    return pad[name]


def check_congruent(batch: Columns, names: list[str]) -> None:
    """Raise ValueError unless all columns have documents of the same number and lengths."""
    for name in names:
        documents, first = batch[name], batch[names[0]]
        if len(documents) != len(first):
            raise ValueError(f"column {name!r} has {len(documents)} documents, column {names[0]!r} has {len(first)}")
        for index, sizes in enumerate(zip(map(len, documents), map(len, first), strict=True)):
            if sizes[0] != sizes[1]:
                raise ValueError(f"document {index}: columns {name!r} and {names[0]!r} have {sizes} values")
