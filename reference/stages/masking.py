"""Mask tokens for masked language modelling: choose tokens (or whole words) to predict, and hide most of them.

Source: Devlin et al. 2019, "BERT", section 3.1 and appendix A.1; whole words: github.com/google-research/bert, note of
May 31st, 2019. BERT's code chooses exactly 15 % of a sequence; here, as in transformers' collator, each candidate is
chosen independently with probability `rate`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from touchstone.stages.batched import check_row_counts, refuse_rows, rows_of_other_length
from touchstone.stages.draws import draw, draw_array, extend_keys, key_of
from touchstone.stages.ragged import IGNORED, MISSING, Array, Ragged

CHOICE, FATE, TOKEN = range(3)
"""Streams of draws: is a token or word chosen, what replaces a chosen token, which random token replaces it."""

BERT_REPLACEMENT = (0.8, 0.1, 0.1)


def mask_tokens(
    input_ids: Sequence[int],
    *,
    special: Sequence[bool],
    mask_id: int,
    vocabulary: Sequence[int] | Array,
    rate: float = 0.15,
    replacement: Sequence[float] = BERT_REPLACEMENT,
    word_ids: Sequence[int | None] | None = None,
    seed: int,
    epoch: int,
    example: int,
) -> tuple[list[int], list[int]]:
    """Mask one example.

    >>> mask_tokens(
    ...     [101, 7, 8, 9, 102], special=[1, 0, 0, 0, 1], mask_id=103, vocabulary=[7, 8, 9],
    ...     word_ids=[None, 0, 0, 1, None], rate=0.5, seed=0, epoch=0, example=11,
    ... )
    ([101, 103, 103, 9, 102], [-100, 7, 8, -100, -100])

    Args:
        input_ids: (T,) token ids.
        special: (T,) true where a token must never be chosen.
        mask_id: the id of `[MASK]`.
        vocabulary: (V,) the ids that random tokens are drawn from, uniformly. Leave special tokens out.
        rate: the probability that a token is chosen; with `word_ids`, the probability that a word is.
        replacement: the probabilities that a chosen token becomes `mask_id`, becomes a random token, or is unchanged.
        word_ids: (T,) the word of each token, `None` if it has none. A word is a maximal run of neighbouring tokens
            with the same id that are not special. Its tokens are chosen together. A token without a word is not chosen.
        seed, epoch, example: the draw depends on these alone. A fixed epoch gives fixed masks, as evaluation needs.

    Returns:
        (T,) token ids with the chosen ones replaced, and (T,) labels: the original id where chosen, -100 elsewhere.

    Raises:
        ValueError: `rate` outside [0, 1], `replacement` that is not three non-negative numbers with sum 1, an empty
            `vocabulary` although random tokens may be needed, different lengths.
    """
    to_mask, to_random = _thresholds(rate, replacement, len(vocabulary))
    _check_lengths(len(input_ids), special=len(special), word_ids=None if word_ids is None else len(word_ids))
    choice, fate, token = (key_of(seed, epoch, example, stream) for stream in (CHOICE, FATE, TOKEN))

    masked = [int(original) for original in input_ids]
    labels = [IGNORED] * len(masked)
    for position, start in _candidates(special, word_ids):
        if draw(choice, start) >= rate:
            continue
        labels[position] = masked[position]
        u = draw(fate, position)
        if u < to_mask:
            masked[position] = int(mask_id)
        elif u < to_random:
            masked[position] = int(vocabulary[math.floor(draw(token, position) * len(vocabulary))])
    return masked, labels


def _candidates(special: Sequence[bool], word_ids: Sequence[int | None] | None) -> list[tuple[int, int]]:
    """Return (position, start) of every token that may be chosen. Tokens with the same start are chosen together."""
    if word_ids is None:
        return [(position, position) for position, is_special in enumerate(special) if not is_special]
    candidates = []
    start = previous = None
    for position, (word, is_special) in enumerate(zip(word_ids, special, strict=True)):
        current = None if is_special else word
        if current is not None:
            if current != previous:
                start = position
            assert start is not None
            candidates.append((position, start))
        previous = current
    return candidates


def _thresholds(rate: float, replacement: Sequence[float], vocabulary_size: int) -> tuple[float, float]:
    """Return two thresholds: a uniform number below the first means the mask, below the second a random token."""
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}: a probability lies in [0, 1]")
    shares = tuple(float(share) for share in replacement)
    # 1e-9: decimal fractions are not exact in binary, and no experiment can tell the difference.
    if len(shares) != 3 or not all(share >= 0 for share in shares) or not math.isclose(sum(shares), 1, abs_tol=1e-9):
        raise ValueError(f"replacement is {shares}: three probabilities (mask, random, unchanged) with sum 1")
    mask, random, unchanged = shares
    if random > 0 and rate > 0 and vocabulary_size == 0:
        raise ValueError(
            f"vocabulary is empty, but a share of {random} of the chosen tokens is drawn from it: pass token ids"
        )
    # Uniform numbers are below 1. A replacement with share 0 must never happen, not even by the rounding of a sum.
    to_mask = mask if random or unchanged else 1.0
    to_random = mask + random if unchanged else 1.0
    return to_mask, to_random if random else to_mask


def _check_lengths(expected: int, **lengths: int | None) -> None:
    for name, length in lengths.items():
        if length is not None and length != expected:
            raise ValueError(f"{name} has length {length}, input_ids {expected}")


# The batched version --------------------------------------------------------------------------------------------------


def mask_tokens_batch(
    input_ids: Ragged,
    *,
    special: Ragged,
    mask_id: int,
    vocabulary: Sequence[int] | Array,
    rate: float = 0.15,
    replacement: Sequence[float] = BERT_REPLACEMENT,
    word_ids: Ragged | None = None,
    seed: int,
    epoch: int,
    examples: Sequence[int] | Array,
) -> tuple[Ragged, Ragged]:
    """Apply `mask_tokens` to N examples.

    Pass `vocabulary` as an array: converting a list of 30,000 ids takes longer than masking a batch.

    Args:
        input_ids, special, word_ids: N rows of tokens, with -1 for `None` in `word_ids`.
        examples: (N,) the argument `example` of each row.
        mask_id, vocabulary, rate, replacement, seed, epoch: as in `mask_tokens`.

    Returns:
        N rows of token ids and N rows of labels.

    Raises:
        ValueError: as in `mask_tokens`, with the number of the row; different numbers of rows.
    """
    to_mask, to_random = _thresholds(rate, replacement, len(vocabulary))
    check_row_counts(len(input_ids), special=special, word_ids=word_ids)
    if len(examples) != len(input_ids):
        raise ValueError(f"{len(examples)} examples for {len(input_ids)} rows of input_ids")
    _refuse_lengths(input_ids, special, word_ids)

    rows = input_ids.rows
    positions = np.arange(len(rows), dtype=np.int64) - input_ids.offsets[rows]
    keys = extend_keys(np.full(len(input_ids), key_of(seed, epoch), np.uint64), examples)
    choice, fate, token = extend_keys(keys, [[CHOICE], [FATE], [TOKEN]])  # (N,) each
    eligible = special.values == 0
    if word_ids is None:
        lucky = draw_array(choice[rows], positions) < rate
    else:  # one draw per word, at its first token
        words = np.where(eligible, word_ids.values, MISSING)
        eligible = words != MISSING
        begins = np.ones(len(words), np.bool_)
        begins[1:] = (words[1:] != words[:-1]) | (rows[1:] != rows[:-1])
        starts = np.flatnonzero(begins)
        lucky = draw_array(choice[rows[starts]], positions[starts]) < rate
        lucky = np.repeat(lucky, np.diff(starts, append=len(words)))
    chosen = np.flatnonzero(eligible & lucky)
    u = draw_array(fate[rows[chosen]], positions[chosen])
    hidden = chosen[u < to_mask]
    random = chosen[(u >= to_mask) & (u < to_random)]

    labels = np.full(len(rows), IGNORED, np.int64)
    labels[chosen] = input_ids.values[chosen]
    masked = input_ids.values.copy()
    masked[hidden] = mask_id
    if random.size:
        drawn = np.floor(draw_array(token[rows[random]], positions[random]) * len(vocabulary)).astype(np.int64)
        masked[random] = np.asarray(vocabulary, dtype=np.int64)[drawn]
    return Ragged(masked, input_ids.offsets.copy()), Ragged(labels, input_ids.offsets.copy())


def _refuse_lengths(input_ids: Ragged, special: Ragged, word_ids: Ragged | None) -> None:
    checked_elsewhere = {"mask_id": 0, "vocabulary": (0,), "seed": 0, "epoch": 0, "example": 0}
    wrong = rows_of_other_length(input_ids, special, word_ids)
    refuse_rows(mask_tokens, input_ids, wrong, special=special, word_ids=word_ids, **checked_elsewhere)
