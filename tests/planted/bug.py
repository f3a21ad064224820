"""A planted bug: a correct implementation with one wrong stage."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import tests.independent

COURSE = "https://github.com/huggingface/course/blob/16af5667/chapters/en/chapter7"


class Bug:
    """An implementation that offers the functions of its base, except for one stage with a bug.

    To see a bug being caught:

        pytest suite/properties --implementation tests.planted.alignment:b_copied_to_later_tokens

    Attributes:
        name: of the function.
        stage: the name of the stage in the contract.
        caught_by: the ids of the checks that must fail on it.
        evidence: where it was seen, as `owner/repository#number` or `course/page.mdx:line`. Empty if it is made up.
        says: the bug in one sentence.
    """

    def __init__(
        self, function: Callable[..., Any], *, stage: str, caught_by: str, evidence: str, base: ModuleType
    ) -> None:
        self.name = self.__qualname__ = function.__name__
        self.module = function.__module__
        self.stage = stage
        self.caught_by = tuple(caught_by.split())
        self.evidence = tuple(evidence.split())
        self.says = " ".join((inspect.getdoc(function) or "").split())
        self._function = function
        self._base = base

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._function if name == self.stage else getattr(self._base, name)

    def __repr__(self) -> str:
        return f"{self.module}:{self.name}"


BUGS: list[Bug] = []
"""All bugs, in the order of the modules and their lines."""


def planted(
    stage: str, *, caught_by: str, evidence: str = "", base: ModuleType = tests.independent
) -> Callable[[Callable[..., Any]], Bug]:
    """Register a function with a bug. `caught_by` and `evidence` are lists separated by blanks."""

    def register(function: Callable[..., Any]) -> Bug:
        bug = Bug(function, stage=stage, caught_by=caught_by, evidence=evidence, base=base)
        if not bug.says or not bug.caught_by or bug.name in {other.name for other in BUGS}:
            raise ValueError(f"{bug!r} needs a docstring, a check that catches it, and a unique name")
        BUGS.append(bug)
        return bug

    return register


def link(evidence: str) -> str:
    """Return a Markdown link to where a bug was seen."""
    if match := re.fullmatch(r"course/([\w.]+):(\d+)(?:-(\d+))?", evidence):
        page, first, last = match.groups()
        return f"[{evidence}]({COURSE}/{page}?plain=1#L{first}{f'-L{last}' if last else ''})"
    if match := re.fullmatch(r"([\w.-]+/[\w.-]+)#(\d+)", evidence):
        return f"[{evidence}](https://github.com/{match[1]}/issues/{match[2]})"
    raise ValueError(f"{evidence!r} is neither owner/repository#number nor course/page.mdx:line")
