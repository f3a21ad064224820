"""The implementation under test: found by name, asked what it offers, called with every call on record."""

from __future__ import annotations

import importlib
import math
import os
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

from suite.properties.failure import Call, Mismatch, Trace
from suite.properties.values import fresh, plain, spell_out

DEFAULT = "suite.implementations.reference"

STAGES = (
    "align_labels",
    "merge_labels",
    "chunk",
    "chunk_batches",
    "mask_tokens",
    "pad_batch",
    "score_entities",
    "perplexity",
    "pad_seq2seq",
    "shift_right",
    "clean_sequences",
    "bleu",
    "rouge",
    "split_sentences",
    "lead",
    "chunk_documents",
    "causal_labels",
    "key_token_weights",
    "make_windows",
    "answer_positions",
    "best_spans",
    "pick_answer",
    "squad_scores",
    "pack",
    "unpack",
    "assign_bins",
    "align_labels_batch",
    "merge_labels_batch",
    "chunk_batch",
    "mask_tokens_batch",
    "chunk_documents_batch",
    "make_windows_batch",
    "answer_positions_batch",
    "best_spans_batch",
    "pick_answer_batch",
    "pack_batch",
    "assign_bins_batch",
)


class ImplementationError(Exception):
    """`--implementation` names nothing that can be tested; the message says what to do."""


class Subject:
    """An implementation as the checks see it: `subject.align_labels(...)` records the call and returns plain values.

    The implementation gets its own copies of all arguments. Its warnings are its own affair and are not shown.
    """

    def __init__(self, target: object, *, name: str, module: str = "", attribute: str = "") -> None:
        self.target = target
        self.name = name
        self.module = module
        self.attribute = attribute
        self.trace = Trace()

    @classmethod
    def of(cls, implementation: object) -> Subject:
        """A module, an object, the name of either, or a subject."""
        if isinstance(implementation, Subject):
            return implementation
        if isinstance(implementation, str):
            return load(implementation)
        if isinstance(implementation, types.ModuleType):
            return cls(implementation, name=implementation.__name__, module=implementation.__name__)
        name = getattr(implementation, "__qualname__", type(implementation).__qualname__)
        return cls(implementation, name=name, attribute="implementation")

    def offers(self, stage: str) -> bool:
        return callable(getattr(self.target, stage, None))

    @property
    def missing(self) -> tuple[str, ...]:
        """The stages that are not offered, in the contract's order."""
        return tuple(stage for stage in STAGES if not self.offers(stage))

    def remark(self, **remarks: object) -> None:
        """Shown above the input of a failure."""
        self.trace.remarks.update({name: str(text) for name, text in remarks.items()})

    def __getattr__(self, stage: str) -> Callable[..., Any]:
        if stage not in STAGES:
            raise AttributeError(stage)

        def call(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            return _NORMAL[stage](plain(self.raw(stage, *args, **kwargs)))

        return call

    def raw(self, stage: str, *args: Any, **kwargs: Any) -> Any:
        """Calls a stage and returns what it returns, unchanged. The arguments are copied first."""
        __tracebackhide__ = True
        return self.record(stage, args, kwargs, hand_over=fresh)

    def record(
        self, stage: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, hand_over: Callable[[Any], Any]
    ) -> Any:
        """`hand_over` makes the object the implementation gets of the one that is recorded."""
        __tracebackhide__ = True
        call = Call(stage, args, kwargs)
        self.trace.calls.append(call)
        function = getattr(self.target, stage)
        handed = tuple(map(hand_over, args)), {name: hand_over(value) for name, value in kwargs.items()}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = function(*handed[0], **handed[1])
        except Exception as error:
            call.error = error
            raise ImplementationRaised(error) from error
        call.result = result
        return result

    def expect_refusal(self, stage: str, *args: Any, mentions: tuple[object, ...] = (), **kwargs: Any) -> None:
        """The call must raise a `ValueError` whose message contains `mentions` (an index, a value)."""
        __tracebackhide__ = True
        wanted = "a ValueError" + (f" whose message contains {' and '.join(map(str, mentions))}" if mentions else "")
        try:
            result = self.raw(stage, *args, **kwargs)
        except ImplementationRaised as raised:
            error = raised.error
            missing = [thing for thing in mentions if str(thing) not in str(error)]
            if not isinstance(error, ValueError) or missing:
                raise Mismatch(expected=wanted, came=f"{type(error).__name__}: {error}") from None
        else:
            raise Mismatch(expected=wanted, came=f"no error, but {spell_out(plain(result))}")


class ImplementationRaised(Exception):
    """An exception left the implementation."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def load(name: str) -> Subject:
    """`package.module`, `package.module:object` or `package.module.object`.

    Raises:
        ImplementationError: it cannot be imported, or offers no stage.
    """
    module, _, attribute = name.partition(":")
    if module.endswith(".py") or "/" in module or not all(part.isidentifier() for part in module.split(".")):
        raise ImplementationError(
            f"{name!r} is not a module name: write package.module or package.module:object, with dots and no .py"
        )
    if os.getcwd() not in sys.path:  # pytest, unlike python -m pytest, leaves the working directory out
        sys.path.append(os.getcwd())
    try:
        target: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        parent, _, last = module.rpartition(".")
        missing = error.name or ""
        if missing == module and parent and not attribute:
            try:
                target = getattr(importlib.import_module(parent), last)
            except (ImportError, AttributeError):
                pass
            else:
                return _offering(Subject(target, name=name, module=parent, attribute=last))
        if module == missing or module.startswith(missing + "."):
            raise ImplementationError(
                f"no module named {missing!r}: run from the folder that holds it ({os.getcwd()} is searched), "
                f"install it, or add its folder to PYTHONPATH"
            ) from error
        raise ImplementationError(f"{module} needs {missing!r}, which is not installed: pip install it") from error
    except Exception as error:
        raise ImplementationError(
            f"importing {module} raised {type(error).__name__}: {error}; try python -c 'import {module}'"
        ) from error
    for part in attribute.split(".") if attribute else ():
        if not hasattr(target, part):
            raise ImplementationError(f"{module} has no attribute {attribute!r}: it offers {_public(target)}")
        target = getattr(target, part)
    return _offering(Subject(target, name=name, module=module, attribute=attribute))


def _offering(subject: Subject) -> Subject:
    if len(subject.missing) == len(STAGES):
        raise ImplementationError(
            f"{subject.name} offers none of the contract's functions ({', '.join(STAGES[:8])}): see docs/contract.md; "
            f"it has {_public(subject.target)}"
        )
    return subject


def _public(target: object) -> str:
    names = [name for name in dir(target) if not name.startswith("_")]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or "nothing public"


# --- what each stage must return -------------------------------------------------------------------------------------


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


_NORMAL: dict[str, Callable[[Any], Any]] = {
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
