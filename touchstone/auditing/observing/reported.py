"""Record the losses and perplexities that a script reports: what it prints, logs, or writes beside a progress bar."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from touchstone.auditing.observing.frames import caller
from touchstone.auditing.observing.observe import Replace
from touchstone.auditing.observing.trace import Reported

if TYPE_CHECKING:
    from touchstone.auditing.observing.record import Recorder

REPORTS_KEPT = 400
LONGEST = 4_000
"""Longer texts are data or listings, not reports of a loss."""
_NAME = r"(?:[A-Za-z][\w/ .\-]{0,30}?)?(?<![A-Za-z])(?:loss|ppl|perplexity)[\w/]*"
_NUMBER = r"-?\d+\.\d+(?:[eE][-+]?\d+)?"
_REPORT = re.compile(
    rf"(?P<name>{_NAME})[\"']?\s*(?:is|of)?\s*[:=]?\s*(?:\w+(?:\.\w+)?\()?(?P<number>{_NUMBER})", re.IGNORECASE
)
EXACT = 1e-5
"""Relative precision of a number that is reported with all its digits: that of float32 sums in another order."""


class Reports:
    """The hooks of a recorder on functions that report numbers."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def patches(self, replace: Replace) -> dict[str, Callable[[ModuleType], None]]:
        """Return what to do with a module that reports as soon as it has been imported, by its name."""
        return {
            "builtins": lambda module: replace(module, "print", self._print),
            "logging": lambda module: replace(module.Logger, "handle", self._handle),
            "tqdm.std": self._tqdm(replace),
        }

    def _tqdm(self, replace: Replace) -> Callable[[ModuleType], None]:
        def watch(module: ModuleType) -> None:
            replace(module.tqdm, "set_postfix", self._postfix)
            replace(module.tqdm, "set_description", self._text)
            replace(module.tqdm, "set_postfix_str", self._text)

        return watch

    def _print(self, original: Any) -> Any:
        def print(*values: Any, **options: Any) -> None:
            original(*values, **options)
            if self._recorder.ready:
                self._note(" ".join(str(each) for each in values))

        return print

    def _handle(self, original: Any) -> Any:
        def handle(logger: Any, record: Any) -> Any:
            if self._recorder.ready:
                with contextlib.suppress(Exception):  # logging reports arguments that do not fit by itself
                    self._note(record.getMessage())
            return original(logger, record)

        return handle

    def _text(self, original: Any) -> Any:
        def show(bar: Any, text: Any = None, *arguments: Any, **options: Any) -> Any:
            if self._recorder.ready and text:
                self._note(str(text))
            return original(bar, text, *arguments, **options)

        return show

    def _postfix(self, original: Any) -> Any:
        def set_postfix(bar: Any, ordered_dict: Any = None, refresh: Any = True, **options: Any) -> Any:
            if self._recorder.ready:
                self._note_values({**(ordered_dict or {}), **options})
            return original(bar, ordered_dict, refresh, **options)

        return set_postfix

    def log(self, original: Any) -> Any:
        """Return what takes the place of `Accelerator.log`."""

        def log(accelerator: Any, values: Any, *arguments: Any, **options: Any) -> Any:
            if self._recorder.ready and isinstance(values, Mapping):
                self._note_values(values)
            return original(accelerator, values, *arguments, **options)

        return log

    def _note(self, text: str) -> None:
        if len(text) <= LONGEST:
            for name, value, tolerance in losses_in(text):
                self._add(name, value, tolerance)

    def _note_values(self, values: Mapping[Any, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, str):
                self._note(f"{name}: {value}")
            elif re.fullmatch(_NAME, str(name), re.IGNORECASE):
                try:
                    number = float(value)
                except (TypeError, ValueError):
                    continue
                self._add(str(name), number, EXACT * abs(number))

    def _add(self, name: str, value: float, tolerance: float) -> None:
        trace = self._recorder.trace
        if len(trace.reported) < REPORTS_KEPT:
            trace.reported.append(Reported(name.strip(), value, tolerance, len(trace.forwards), caller()))


def losses_in(text: str) -> Iterator[tuple[str, float, float]]:
    """Yield the name, the value and the precision of each loss and perplexity in a text.

    >>> [(name, value) for name, value, _ in losses_in("step 2: train loss 4.25, val loss 3.5, lr 0.001")]
    [('train loss', 4.25), ('val loss', 3.5)]
    >>> [(name, value) for name, value, _ in losses_in("{'f1': 0.5, 'eval/loss': tensor(1.75), 'perplexity': 5.75}")]
    [('eval/loss', 1.75), ('perplexity', 5.75)]
    """
    for found in _REPORT.finditer(text):
        number = found["number"]
        mantissa, _, exponent = number.lower().partition("e")
        unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        value = float(number)
        yield found["name"].strip(), value, max(0.5 * unit, EXACT * abs(value))
