"""Helpers of the batched versions: finding invalid rows, and refusing them in the words of the plain stage.

A batched version finds invalid rows with array operations. It then calls the plain stage on the first of them, which
raises the error. So both raise the same error, and its text exists once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from touchstone.stages.ragged import MISSING, Ragged

Mask = npt.NDArray[np.bool_]


def check_row_counts(expected: int, **columns: Ragged | None) -> None:
    """Raise ValueError if a column has another number of rows than expected."""
    for name, column in columns.items():
        if column is not None and len(column) != expected:
            raise ValueError(f"{name} has {len(column)} rows where {expected} are expected")


def rows_of_other_length(expected: Ragged, *columns: Ragged | None) -> Mask:
    """Return (N,) bool: true for the rows in which a column has another length than in `expected`."""
    rows = np.zeros(len(expected), np.bool_)
    for column in columns:
        if column is not None:
            rows |= column.lengths != expected.lengths
    return rows


def rows_with(wrong: Mask, ragged: Ragged) -> Mask:
    """Return (N,) bool: true for the rows that hold a wrong value. `wrong` has one entry per flat value."""
    rows = np.zeros(len(ragged), np.bool_)
    if wrong.any():
        rows[ragged.rows[wrong]] = True
    return rows


def raise_like(plain: Callable[..., object], row: int, /, *args: Any, **kwargs: Any) -> NoReturn:
    """Raise the error that the plain stage raises for these arguments, with the number of the row in front.

    Raises:
        ValueError: always, unless the batched version is wrong about the row.
        AssertionError: the plain stage accepts the arguments, so the batched version has a bug.
    """
    try:
        plain(*args, **kwargs)
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from None
    name = getattr(plain, "__name__", repr(plain))
    raise AssertionError(f"{name} accepts row {row}, which its batched version refuses: report this bug")


def refuse_rows(plain: Callable[..., object], values: Ragged, wrong: Mask, /, **arguments: Any) -> None:
    """Raise the error of the plain stage for the first wrong row; do nothing if no row is wrong.

    Args:
        plain: the plain stage.
        values: N rows of its positional argument.
        wrong: (N,) bool.
        arguments: its keyword arguments. Of a `Ragged` or an array, the row's part is passed.
    """

    def of_row(argument: Any) -> Any:
        if isinstance(argument, Ragged):
            return [None if value == MISSING else value for value in argument[row].tolist()]
        return int(argument[row]) if isinstance(argument, np.ndarray) else argument

    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise_like(plain, row, values[row].tolist(), **{name: of_row(value) for name, value in arguments.items()})
