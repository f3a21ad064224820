"""What the batched twins share: how they refuse wrong input.

A twin finds the wrong rows with arrays; what is wrong with one, the plain definition knows and says. So both raise the
same error, and only the plain definition holds its words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from touchstone.stages.ragged import MISSING, Ragged

Mask = npt.NDArray[np.bool_]


def check_row_counts(expected: int, **columns: Ragged | None) -> None:
    """Raises ValueError for a column that has another number of rows."""
    for name, column in columns.items():
        if column is not None and len(column) != expected:
            raise ValueError(f"{name} has {len(column)} rows where {expected} are expected")


def rows_of_other_length(expected: Ragged, *columns: Ragged | None) -> Mask:
    """(N,) true for the rows in which a column is not as long as expected."""
    rows = np.zeros(len(expected), np.bool_)
    for column in columns:
        if column is not None:
            rows |= column.lengths != expected.lengths
    return rows


def rows_with(wrong: Mask, ragged: Ragged) -> Mask:
    """(N,) true for the rows that hold a wrong value. `wrong` is as long as the flat values."""
    rows = np.zeros(len(ragged), np.bool_)
    if wrong.any():
        rows[ragged.rows[wrong]] = True
    return rows


class Refuse:
    """Call it with the wrong rows, (N,) bool: nothing happens if there are none, else it raises what `plain` does.

    Args:
        plain: the definition for one example.
        values: its positional argument, N rows.
        arguments: its other arguments; of a `Ragged` or an array the row's part is handed over.
    """

    def __init__(self, plain: Callable[..., object], values: Ragged, arguments: Mapping[str, Any]) -> None:
        self.plain = plain
        self.values = values
        self.arguments = arguments

    def __call__(self, wrong: Mask) -> None:
        if wrong.any():
            self._raise(int(np.flatnonzero(wrong)[0]))

    def _raise(self, row: int) -> NoReturn:
        def of_row(argument: Any) -> Any:
            if isinstance(argument, Ragged):
                return [None if value == MISSING else value for value in argument[row].tolist()]
            return int(argument[row]) if isinstance(argument, np.ndarray) else argument

        try:
            self.plain(self.values[row].tolist(), **{name: of_row(value) for name, value in self.arguments.items()})
        except ValueError as error:
            raise ValueError(f"row {row}: {error}") from None
        raise AssertionError(f"row {row} is wrong to the batched twin and right to {self.plain}")  # a bug of the twin
