"""Prepare causal language modelling: cut documents into chunks, label a batch, weigh examples by their key tokens.

Each document is cut separately, or all of them are joined and then cut. The tail that is dropped depends on the
document (or on the whole data set if joined), not on the batches of a `map`.

Sources: Hugging Face course, chapter 7, section 6 (chunks, and weights for examples with key tokens); Radford et al.
2019, "Language models are unsupervised multitask learners" (documents joined by an end-of-text token).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from touchstone.stages.ragged import IGNORED, Array, Ragged

REMAINDERS = ("drop", "keep", "join")


def chunk_documents(
    documents: Sequence[Sequence[int]], *, length: int, remainder: str = "drop", eos_id: int | None = None
) -> list[list[int]]:
    """Cut documents into training examples of at most `length` tokens.

    >>> chunk_documents([[5, 6, 7], [8, 9]], length=2)
    [[5, 6], [8, 9]]
    >>> chunk_documents([[5, 6, 7], [8, 9]], length=2, remainder="keep")
    [[5, 6], [7], [8, 9]]
    >>> chunk_documents([[5, 6, 7], [8, 9]], length=2, remainder="join", eos_id=0)
    [[5, 6], [7, 0], [8, 9]]

    Args:
        documents: D documents of T_d token ids, without special tokens.
        length: tokens per chunk, the model's context.
        remainder: `drop`: cut each document separately and drop the remainder at its end, so a document shorter than
            `length` is dropped entirely; `keep`: keep the remainder as a shorter chunk; `join`: concatenate the
            documents, each followed by `eos_id`, and cut; only the remainder at the very end is dropped.
        eos_id: the end-of-text token. Required for `join` and not allowed otherwise.

    Returns:
        Chunks in the order of the documents.

    Raises:
        ValueError: `length < 1`, an unknown remainder, `join` without an `eos_id`, or an `eos_id` without `join`.
    """
    _check_options(length=length, remainder=remainder, eos_id=eos_id)
    if eos_id is not None:
        joined = [int(token) for document in documents for token in chain(document, (eos_id,))]
        return list(_cut(joined, length=length, keep=False))
    own = ([int(token) for token in document] for document in documents)
    return [piece for document in own for piece in _cut(document, length=length, keep=remainder == "keep")]


def _cut(tokens: list[int], *, length: int, keep: bool) -> Iterable[list[int]]:
    end = len(tokens) if keep else len(tokens) // length * length
    return (tokens[start : start + length] for start in range(0, end, length))


def _check_options(*, length: int, remainder: str, eos_id: int | None) -> None:
    if length < 1:
        raise ValueError(f"length is {length}: a chunk has 1 token or more")
    if remainder not in REMAINDERS:
        raise ValueError(f"remainder {remainder!r} is unknown: use one of {', '.join(REMAINDERS)}")
    if remainder == "join" and eos_id is None:
        raise ValueError("remainder='join' puts eos_id after each document, but eos_id is None: pass it")
    if remainder != "join" and eos_id is not None:
        raise ValueError(
            f"eos_id is {eos_id}, but remainder={remainder!r} does not use it: leave it out, or use 'join'"
        )


def causal_labels(
    input_ids: Sequence[Sequence[int]] | Array, *, attention_mask: Sequence[Sequence[int]] | Array
) -> Array:
    """Return the labels of a batch: `input_ids` where the mask is 1, -100 where it is 0.

    The labels depend on the mask and not on the pad id: if padding and the end of text share an id, a real end of text
    keeps its label. They are not shifted. Hugging Face's models compare the logits at position t with the label at
    t + 1 themselves.

    >>> causal_labels([[5, 6, 0], [7, 0, 0]], attention_mask=[[1, 1, 1], [1, 1, 0]]).tolist()
    [[5, 6, 0], [7, 0, -100]]

    Args:
        input_ids: (B, T) token ids.
        attention_mask: (B, T) 1 at real tokens, 0 at padding.

    Returns:
        (B, T) int64.

    Raises:
        ValueError: arrays that are not (B, T) or differ in shape, a mask that holds anything but 0 and 1.
    """
    ids, mask = _matrix(input_ids, "input_ids"), _matrix(attention_mask, "attention_mask")
    if ids.shape != mask.shape:
        raise ValueError(f"attention_mask has shape {mask.shape}, input_ids {ids.shape}")
    if (wrong := np.argwhere((mask != 0) & (mask != 1))).size:
        row, column = wrong[0]
        raise ValueError(f"attention_mask[{row}][{column}] is {mask[row, column]}: use 1 for a token and 0 for padding")
    return np.where(mask == 1, ids, IGNORED).astype(np.int64)


def key_token_weights(
    input_ids: Sequence[Sequence[int]] | Array, *, key_ids: Sequence[int] | Array, alpha: float = 1.0
) -> npt.NDArray[np.float64]:
    """Return the weight of each example: the more key tokens it holds, the higher the weight.

    >>> key_token_weights([[5, 6, 5], [7, 8, 9]], key_ids=[5], alpha=0.5).tolist()
    [1.5, 0.5]

    Args:
        input_ids: (B, T) token ids.
        key_ids: (K,) the ids of the key tokens. An id that is listed twice counts once.
        alpha: the weight of an example without key tokens.

    Returns:
        (B,) float64: `alpha * (1 + number of key tokens in the row)`.

    Raises:
        ValueError: input that is not (B, T), a negative `alpha`, a negative key id.
    """
    ids = _matrix(input_ids, "input_ids")
    keys = np.asarray(key_ids, dtype=np.int64)
    if not alpha >= 0:
        raise ValueError(f"alpha is {alpha}: a weight is 0 or more")
    if (wrong := np.flatnonzero(keys < 0)).size:
        raise ValueError(f"key_ids[{wrong[0]}] is {keys[wrong[0]]}: a token id is 0 or more")
    places = np.isin(ids, keys).sum(axis=1)
    return np.asarray(alpha * (1.0 + places), dtype=np.float64)


def _matrix(values: Sequence[Sequence[int]] | Array, name: str) -> Array:
    """Return (B, T) integers.

    Raises:
        ValueError: rows of different lengths, another number of dimensions.
    """
    rows = [np.shape(row) for row in values]
    if odd := [number for number, shape in enumerate(rows) if len(shape) != 1 or shape != rows[0]]:
        raise ValueError(
            f"{name} is not (B, T): row {odd[0]} has shape {rows[odd[0]]}, row 0 has {rows[0]}: "
            f"pad the rows to one width"
        )
    return np.asarray(values, dtype=np.int64).reshape(len(rows), -1 if rows else 0)


# The batched version --------------------------------------------------------------------------------------------------


def chunk_documents_batch(
    documents: Ragged, *, length: int, remainder: str = "drop", eos_id: int | None = None
) -> Ragged:
    """Apply `chunk_documents` to documents as `Ragged`.

    Args:
        documents: D rows of token ids.
        length, remainder, eos_id: as in `chunk_documents`.

    Returns:
        One row per chunk.

    Raises:
        ValueError: as in `chunk_documents`.
    """
    _check_options(length=length, remainder=remainder, eos_id=eos_id)
    values, offsets = documents.values, documents.offsets
    if eos_id is not None:
        joined = np.insert(values, offsets[1:], eos_id)
        return _whole_chunks(joined[: len(joined) // length * length], length=length)
    within = documents.places
    if remainder == "keep":  # no token is dropped, so only the offsets change
        return Ragged(values.copy(), np.append(np.flatnonzero(within % length == 0), len(values)).astype(np.int64))
    whole = np.repeat(documents.lengths // length * length, documents.lengths)
    return _whole_chunks(values[within < whole], length=length)


def _whole_chunks(values: Array, *, length: int) -> Ragged:
    """Cut values, whose number is a multiple of `length`. The result shares their memory."""
    return Ragged(values, np.arange(0, len(values) + 1, length, dtype=np.int64))
