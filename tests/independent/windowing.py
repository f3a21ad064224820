"""Windows cut off the front of the remaining context; answers looked up in a map of characters to tokens."""

from collections.abc import Sequence
from typing import Any

Cell = tuple[int, int, tuple[int, int] | None]  # id, token type, characters


def make_windows(
    context: Sequence[int],
    *,
    offsets: Sequence[Any],
    question: Sequence[int],
    template: Sequence[tuple[Any, int]],
    max_length: int,
    stride: int,
) -> dict[str, list[Any]]:
    """See `docs/contract.md`."""
    names = [what for what, _ in template]
    if names.count("question") != 1 or names.count("context") != 1:
        raise ValueError(f"the template {template!r} needs one question and one context")
    if len(context) != len(offsets):
        raise ValueError(f"{len(context)} tokens of the context but {len(offsets)} offsets")
    room = max_length - len(question) - (len(template) - 2)
    if room < 1:
        raise ValueError(f"max_length {max_length} has no room for the context")
    if stride < 0 or (len(context) > room and stride >= room):
        raise ValueError(f"stride {stride} does not fit a room of {room}")

    left = [(int(token), (int(pair[0]), int(pair[1]))) for token, pair in zip(context, offsets, strict=True)]
    result: dict[str, list[Any]] = {"input_ids": [], "token_type_ids": [], "offsets": [], "first": []}
    while True:
        cells: list[Cell] = []
        for what, kind in template:
            if isinstance(what, str) and what == "context":
                cells += [(token, int(kind), pair) for token, pair in left[:room]]
            else:
                cells += [(int(token), int(kind), None) for token in (question if what == "question" else [what])]
        for name, column in zip(
            ("input_ids", "token_type_ids", "offsets"), zip(*cells, strict=True) if cells else [()] * 3, strict=True
        ):
            result[name].append(list(column))
        result["first"].append(len(context) - len(left))
        if len(left) <= room:
            return result
        left = left[room - stride :]


def answer_positions(answers: Sequence[Any], *, offsets: Sequence[Any], cls: int) -> tuple[int, int]:
    """See `docs/contract.md`."""
    if cls not in range(len(offsets)):
        raise ValueError(f"cls {cls} is not in a window of {len(offsets)} tokens")
    for index, (start, end) in enumerate(answers):
        if start < 0 or start >= end:
            raise ValueError(f"answer {index} runs from {start} to {end}")
    real = [position for position, pair in enumerate(offsets) if pair is not None and pair[1] > pair[0]]
    tokens_at: dict[int, list[int]] = {}
    for position in real:
        for character in range(offsets[position][0], offsets[position][1]):
            tokens_at.setdefault(character, []).append(position)
    for start, end in answers:
        if real and offsets[real[0]][0] <= start and end <= offsets[real[-1]][1]:
            covering = sorted(token for character in range(start, end) for token in tokens_at.get(character, []))
            if covering:
                return covering[0], covering[-1]
    return cls, cls
