"""The Hugging Face course, section 7.3 (15 April 2026): `group_texts`, the whole-word collator, and the perplexity.

Written anew with the same behaviour. What the adapter adds:

* `chunk`: the section adds the column `labels`, which is left out if it was not asked for.
* `chunk_batches` calls it for each batch, as `Dataset.map(batched=True)` does.
* `mask_tokens`: the collator takes features with labels. It always writes the mask, and it draws from NumPy's global
  generator, which the adapter seeds for each example. A `Trainer` does so once for the whole run. Special tokens have
  no word id.
* `perplexity`: the section repeats each batch's loss for its rows, and all batches have equally many rows, so it takes
  the mean of the batches' means.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from touchstone.suite.implementations.run_mlm import Columns, joined_batches


def has_own_labels(columns: Columns) -> bool:
    """Return whether the section can have made these columns: labels are its own work, from the ids."""
    return columns.get("labels", columns["input_ids"]) == columns["input_ids"]


supports = {
    "tail": ["drop"],
    "chunk": {"columns": has_own_labels},
    "chunk_batches": {"batches": lambda batches: all(map(has_own_labels, batches))},
    "mask_tokens": {"replacement": [(1.0, 0.0, 0.0)], "word_ids": lambda words: words is not None},
}
choices = {"remainder": "batch"}


def group_texts(examples: Columns, chunk_size: int) -> dict[str, list[Any]]:
    joined = {name: list(chain(*rows)) for name, rows in examples.items()}
    total = len(joined[next(iter(examples))]) // chunk_size * chunk_size
    result: dict[str, list[Any]] = {
        name: [values[start : start + chunk_size] for start in range(0, total, chunk_size)]
        for name, values in joined.items()
    }
    result["labels"] = result["input_ids"].copy()
    return result


def chunk(columns: Columns, *, length: int) -> dict[str, list[Any]]:
    chunks = group_texts(columns, length)
    return {name: chunks[name] for name in columns}


def chunk_batches(batches: Iterable[Columns], *, length: int) -> dict[str, list[Any]]:
    return joined_batches(chunk(batch, length=length) for batch in batches)


def mask_tokens(
    input_ids: Sequence[int],
    *,
    special: Sequence[bool],
    mask_id: int,
    vocabulary: Sequence[int],
    rate: float = 0.15,
    replacement: Sequence[float] = (0.8, 0.1, 0.1),
    word_ids: Sequence[int | None],
    seed: int,
    epoch: int,
    example: int,
) -> tuple[list[int], list[int]]:
    if any(flag and word is not None for flag, word in zip(special, word_ids, strict=False)):
        raise NotImplementedError("BERT's special tokens have no word id")
    np.random.seed([seed, epoch, example])
    feature: dict[str, list[Any]] = {
        "input_ids": list(input_ids),
        "labels": list(input_ids),
        "word_ids": list(word_ids),
    }
    whole_word_masking(feature, mask_id=mask_id, rate=rate)
    return feature["input_ids"], feature["labels"]


def whole_word_masking(feature: dict[str, list[Any]], *, mask_id: int, rate: float) -> None:
    words = feature.pop("word_ids")
    positions, number, current = defaultdict(list), -1, None
    for position, word in enumerate(words):
        if word is not None:
            if word != current:
                current = word
                number += 1
            positions[number].append(position)
    chosen = np.random.binomial(1, rate, (len(positions),))
    ids, labels = feature["input_ids"], feature["labels"]
    new_labels = [-100] * len(labels)
    for index in np.where(chosen)[0]:
        for position in positions[index]:
            new_labels[position] = labels[position]
            ids[position] = mask_id
    feature["labels"] = new_labels


def perplexity(losses: Sequence[float], *, tokens: Sequence[int]) -> float:
    batch_size = 1
    repeated = [torch.tensor(float(loss)).repeat(batch_size) for loss in losses]
    try:
        return math.exp(torch.mean(torch.cat(repeated)))
    except OverflowError:
        return float("inf")
