"""What each function of the contract must return: the shape alone; whether it is right is for the checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from touchstone.properties.failure import Mismatch
from touchstone.properties.values import spell_out


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(holds: bool, expected: str, came: Any) -> None:
    __tracebackhide__ = True
    if not holds:
        raise Mismatch(expected=expected, came=f"{type(came).__name__}: {spell_out(came)}")


def _integers(value: Any) -> Any:
    __tracebackhide__ = True
    _require(isinstance(value, list) and all(map(_is_integer, value)), "a flat sequence of integers", value)
    return value


def _rows(value: Any) -> Any:
    __tracebackhide__ = True
    rows = isinstance(value, list) and all(isinstance(row, list) and all(map(_is_integer, row)) for row in value)
    _require(rows, "a ragged array of integers", value)
    return value


def _pair(parts: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def normal(value: Any) -> Any:
        __tracebackhide__ = True
        _require(isinstance(value, list) and len(value) == 2, "a pair (input_ids, labels)", value)
        return parts(value[0]), parts(value[1])

    return normal


def _columns_of_rows(value: Any) -> Any:
    __tracebackhide__ = True
    rows = isinstance(value, dict) and all(
        isinstance(column, list)
        and all(isinstance(row, list) and all(x is None or _is_integer(x) for x in row) for row in column)
        for column in value.values()
    )
    _require(rows, "a mapping of column to lists of integers", value)
    return value


def _batch(value: Any) -> Any:
    __tracebackhide__ = True
    _require(isinstance(value, dict), "a mapping of column to array", value)
    return value


def _number(value: Any) -> Any:
    __tracebackhide__ = True
    _require(isinstance(value, int | float) and not math.isnan(value), "a number that is not NaN", value)
    return float(value)


def _numbers(value: Any) -> Any:
    __tracebackhide__ = True
    _require(isinstance(value, list), "a flat sequence of numbers", value)
    return [_number(item) for item in value]


def _windows(value: Any) -> Any:
    """`offsets` become pairs (tuples) and `None`; the rest as it is, lists of integers or of lists of them."""
    __tracebackhide__ = True
    names = ("input_ids", "token_type_ids", "offsets", "first")
    _require(isinstance(value, dict) and all(isinstance(value.get(n), list) for n in names), f"columns {names}", value)
    for name in ("input_ids", "token_type_ids"):
        _rows(value[name])
    _integers(value["first"])
    pairs = all(
        isinstance(row, list)
        and all(
            pair is None or (isinstance(pair, list) and len(pair) == 2 and all(map(_is_integer, pair))) for pair in row
        )
        for row in value["offsets"]
    )
    _require(pairs, "pairs of integers or None in offsets", value["offsets"])
    offsets = [[None if pair is None else tuple(pair) for pair in row] for row in value["offsets"]]
    return {**value, "offsets": offsets}


def _position(value: Any) -> Any:
    __tracebackhide__ = True
    pair = isinstance(value, list) and len(value) == 2 and all(map(_is_integer, value))
    _require(pair, "a pair of integers (first, last)", value)
    return tuple(value)


def _spans(value: Any) -> Any:
    __tracebackhide__ = True
    spans = isinstance(value, list) and all(
        isinstance(span, list)
        and len(span) == 4
        and all(map(_is_integer, span[:3]))
        and isinstance(span[3], int | float)
        for span in value
    )
    _require(spans, "a list of (window, first, last, score)", value)
    return [(*span[:3], float(span[3])) for span in value]


def _answers(value: Any) -> Any:
    __tracebackhide__ = True
    _require(isinstance(value, list), "a list of answers", value)
    return [_batch(answer) for answer in value]


def _list(value: Any) -> Any:
    __tracebackhide__ = True
    _require(isinstance(value, list), "a sequence of rows", value)
    return value


def _text(value: Any) -> Any:
    __tracebackhide__ = True
    _require(isinstance(value, str), "a text", value)
    return value


def _texts(value: Any) -> Any:
    __tracebackhide__ = True
    _require(isinstance(value, list) and all(isinstance(item, str) for item in value), "a list of texts", value)
    return value


RETURNS: dict[str, Callable[[Any], Any]] = {
    "align_labels": _integers,
    "merge_labels": _integers,
    "chunk": _columns_of_rows,
    "chunk_batches": _columns_of_rows,
    "mask_tokens": _pair(_integers),
    "pad_batch": _batch,
    "score_entities": _batch,
    "perplexity": _number,
    "pad_seq2seq": _batch,
    "shift_right": _rows,
    "clean_sequences": _rows,
    "bleu": _batch,
    "rouge": _batch,
    "split_sentences": _texts,
    "lead": _text,
    "chunk_documents": _rows,
    "causal_labels": _rows,
    "key_token_weights": _numbers,
    "make_windows": _windows,
    "answer_positions": _position,
    "best_spans": _spans,
    "pick_answer": _batch,
    "squad_scores": _batch,
    "pack": _batch,
    "unpack": _list,
    "assign_bins": _rows,
    "align_labels_batch": _rows,
    "merge_labels_batch": _rows,
    "chunk_batch": _columns_of_rows,
    "mask_tokens_batch": _pair(_rows),
    "chunk_documents_batch": _rows,
    "make_windows_batch": _batch,
    "answer_positions_batch": _pair(_integers),
    "best_spans_batch": _batch,
    "pick_answer_batch": _answers,
    "pack_batch": _batch,
    "assign_bins_batch": _rows,
}
"""Every function of the contract, in its order, and what makes plain values of its result, or complains of it."""
