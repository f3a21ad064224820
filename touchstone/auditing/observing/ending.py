"""Decide when an observed script ends: after enough steps, when its time is over, or before it writes files.

A loop goes on, shortened, until its evaluation has run and its second epoch has begun. A pass over a loader runs to its
end if that is quick, and otherwise ends after a few batches.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from touchstone.auditing.clock import Stopwatch
from touchstone.auditing.observing.observe import Replace, Undo
from touchstone.auditing.observing.trace import Trace
from touchstone.auditing.probe import BUDGETS, Budget

FAST_STEPS = 2
"""Optimizer steps after which a script ends under `--budget fast`."""
STEPS = 2
"""Optimizer steps that a pass over the training data takes at least before it is shortened."""
BATCHES = {True: 64, False: 8}
"""Batches after which a training pass is shortened even if it has taken only one step: more if there is time."""
EVALUATION_BATCHES = 4
LONGEST = {True: 64, False: 24}
"""Batches in a pass that is never shortened if there is time, for training and for evaluation."""
SECONDS: dict[Budget, float] = {"fast": 2.0, "default": 5.0, "deep": 30.0}
"""Seconds that one pass may take before it is shortened."""
MOST_STEPS = 24
"""Optimizer steps after which a second epoch ends even if no evaluation was seen."""
LOOSE_STEPS = 8
"""Optimizer steps that a loop without a DataLoader takes at least."""
LOOSE_MOST = 200
"""Optimizer steps after which a loop without a DataLoader ends even if no evaluation was seen."""


class Done(BaseException):
    """Ends the script. It is not an Exception, so that the script's own handlers let it pass."""


class Ending:
    """Ends a script when enough has been seen.

    Attributes:
        done: the observation is over; whatever the script still does raises `Done`.
        reason: why it is over.
    """

    def __init__(self, budget: Budget) -> None:
        self.done = False
        self.reason = ""
        self._budget = budget
        self._watch: Stopwatch | None = None
        self._passes: dict[int, Stopwatch] = {}

    def begin(self) -> None:
        """Note that training has begun: backward was called for the first time."""
        if self._watch is None:
            self._watch = Stopwatch()

    @property
    def began(self) -> bool:
        return self._watch is not None

    def _seconds(self) -> float:
        return 0.0 if self._watch is None else self._watch.seconds

    def finish(self, reason: str) -> None:
        """End the script.

        Raises:
            Done: always.
        """
        if not self.done:
            self.done, self.reason = True, reason
        raise Done

    def check(self) -> None:
        """End the script if it goes on after its end, or if half the budget is used up."""
        if self.done:
            raise Done
        limit = BUDGETS[self._budget] / 2
        if self._seconds() > limit:
            self.finish(f"half the budget ({limit:.0f} s) was used up")

    def after_step(self, trace: Trace) -> None:
        """End the script if it has taken enough optimizer steps."""
        self.check()
        taken = len(trace.updates)
        if self._budget == "fast":
            if taken >= FAST_STEPS:
                self.finish(f"{taken} optimizer steps were seen")
            return
        passes = trace.training_passes()
        evaluated = any(not each.grad for each in trace.forwards)
        if not passes and taken >= LOOSE_STEPS:
            late = taken >= LOOSE_MOST or self._seconds() > SECONDS[self._budget]
            if late or (evaluated and self._steps_after_evaluation(trace) >= STEPS):
                self.finish(f"{taken} optimizer steps were seen")
        again = len(passes) > 1 and len(_since(trace, passes[-1].step)) >= STEPS
        if again and (evaluated or taken >= MOST_STEPS or self._seconds() > SECONDS[self._budget]):
            self.finish("the second epoch began")

    @staticmethod
    def _steps_after_evaluation(trace: Trace) -> int:
        last = max(each.step for each in trace.forwards if not each.grad)
        return len(_since(trace, last))

    def ends_pass(self, trace: Trace, index: int, length: int | None) -> bool:
        """Tell whether a pass over a loader ends now, before its next batch, so that the audit is quick.

        Args:
            trace: what was seen so far.
            index: the index of the pass.
            length: the number of batches of the loader, or None if unknown.
        """
        self.check()
        this = trace.passes[index]
        passed = self._passes.setdefault(index, Stopwatch()).seconds
        training = this.training or any(each.training for each in trace.passes if each.loader == this.loader)
        if training:
            steps = len(_since(trace, this.step))
            early = this.batches < BATCHES[passed < SECONDS[self._budget]]
            if steps < (STEPS if early else 1):
                return False
            if not trace.accumulate and trace.unstepped:
                return False  # a plain loop may step at its last batch, so it ends only between two groups
            group = len(trace.updates[0].losses)
            if trace.accumulate and group > 1 and this.batches % group == 0:
                return False  # Accelerate steps at the end of a pass: an incomplete group is seen too
        elif this.batches < EVALUATION_BATCHES or not any(each.passing == index for each in trace.forwards[-3:]):
            return False  # the script may read the data for another reason, such as a vocabulary
        if self._budget == "fast":
            return True
        whole = passed / max(this.batches, 1) * length if length else 0.0
        quick = length is not None and (length <= LONGEST[training] or self._budget == "deep")
        return not quick or max(whole, passed) > SECONDS[self._budget]


def _since(trace: Trace, step: int) -> list[Any]:
    return trace.updates[step:]


class WriteGuard:
    """Ends a script before it writes, moves or deletes a file after its training began.

    Caches and temporary files are let through: libraries write them in the course of an evaluation.
    """

    def __init__(self, ending: Ending, folder: Path) -> None:
        self._ending = ending
        self._own = tuple({os.path.abspath(folder), os.getcwd()})
        cache = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
        caches = (os.environ.get(name) for name in ("HF_HOME", "HF_DATASETS_CACHE", "HF_METRICS_CACHE", "TORCH_HOME"))
        self._free = ("/dev/", "/proc/", "/sys/", cache, tempfile.gettempdir(), *filter(None, caches))
        self._process = os.getpid()
        self._active = False

    def __enter__(self) -> WriteGuard:
        self._active = True
        sys.addaudithook(self._look)  # a hook cannot be removed: it does nothing when the guard is over
        return self

    def __exit__(self, *_: object) -> None:
        self._active = False

    def patches(self, replace: Replace, _: Undo) -> dict[str, Callable[[ModuleType], None]]:
        """Return what to do with modules whose functions write files without Python's `open`."""

        def guarded(original: Any, place: int) -> Any:
            def save(*arguments: Any, **options: Any) -> Any:
                for path in arguments[place:] + tuple(options.values()):
                    if isinstance(path, (str, os.PathLike)):
                        self._look("open", (path, "w", 0))
                return original(*arguments, **options)

            return save

        def torch_save(module: ModuleType) -> None:
            for owner in (module, sys.modules.get("torch")):
                if owner is not None and "save" in vars(owner):
                    replace(owner, "save", lambda original: guarded(original, 1))

        return {
            "torch.serialization": torch_save,
            "safetensors.torch": lambda module: replace(module, "save_file", lambda original: guarded(original, 1)),
        }

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active or event not in _WRITES or not self._ending.began or os.getpid() != self._process:
            return
        if event == "open" and not _for_writing(*arguments[1:3]):
            return
        if event == "open" and isinstance(arguments[0], int):
            return
        path = arguments[0]
        if event == "os.mkdir" and isinstance(path, (str, bytes, os.PathLike)) and os.path.isdir(path):
            return
        if isinstance(path, (str, bytes, os.PathLike)) and not self._let_through(os.path.abspath(os.fsdecode(path))):
            self._ending.finish(f"it would have written {os.fsdecode(path)}")

    def _let_through(self, path: str) -> bool:
        name = os.path.basename(path)
        if name.endswith((".pyc", ".lock")) or "__pycache__" in path or name.startswith(("pymp-", "cache-", "tmp")):
            return True
        free = max((len(each) for each in self._free if path.startswith(each)), default=0)
        own = max((len(each) for each in self._own if path.startswith(each + os.sep)), default=0)
        return free > own


_WRITES = frozenset(
    ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree", "shutil.copyfile")
)


def _for_writing(mode: Any, flags: Any) -> bool:
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
