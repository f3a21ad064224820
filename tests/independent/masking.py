"""BERT's masking with draws from `random.Random`, seeded with the text of (seed, epoch, example)."""

import math
from collections.abc import Sequence
from random import Random

from tests.independent.ignored import IGNORED


def mask_tokens(
    input_ids: Sequence[int],
    *,
    special: Sequence[bool],
    mask_id: int,
    vocabulary: Sequence[int],
    rate: float = 0.15,
    replacement: tuple[float, float, float] = (0.8, 0.1, 0.1),
    word_ids: Sequence[int | None] | None = None,
    seed: int,
    epoch: int,
    example: int,
) -> tuple[list[int], list[int]]:
    """See `docs/contract.md`."""
    n = len(input_ids)
    for what, column in (("special", special), ("word_ids", word_ids)):
        if column is not None and len(column) != n:
            raise ValueError(f"{n} input_ids but {len(column)} {what}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate {rate} is not in [0, 1]")
    if len(replacement) != 3 or not all(p >= 0 for p in replacement) or not math.isclose(sum(replacement), 1):
        raise ValueError(f"replacement {replacement} is not three probabilities with sum 1")
    if replacement[1] > 0 and rate > 0 and len(vocabulary) == 0:
        raise ValueError("vocabulary is empty, but random tokens are needed")

    random = Random(f"{int(seed)} {int(epoch)} {int(example)}")
    masked = [int(token) for token in input_ids]
    labels = [IGNORED] * n
    for unit in units(special, word_ids):
        if random.random() >= rate:
            continue
        for position in unit:
            labels[position] = masked[position]
            [kind] = random.choices(("mask", "random", "unchanged"), weights=replacement)
            if kind == "mask":
                masked[position] = int(mask_id)
            elif kind == "random":
                masked[position] = int(vocabulary[random.randrange(len(vocabulary))])
    return masked, labels


def units(special: Sequence[bool], word_ids: Sequence[int | None] | None) -> list[list[int]]:
    """Return the positions that are chosen together: single tokens, or runs of neighbours with one word id."""
    if word_ids is None:
        return [[position] for position, never in enumerate(special) if not never]
    runs: list[list[int]] = []
    previous = None
    for position, (never, word) in enumerate(zip(special, word_ids, strict=True)):
        current = None if never else word
        if current is not None:
            if current == previous:
                runs[-1].append(position)
            else:
                runs.append([position])
        previous = current
    return runs
