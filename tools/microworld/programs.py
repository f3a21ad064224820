"""Draw short, valid Python programs of data science.

A program has a subject and a table with columns. Its steps read, clean, group, plot, fit and simulate. Later lines use
the names that earlier lines define, so that a model profits from context. The names of columns, files and functions in
the validation split never occur in training.
"""

from __future__ import annotations

from dataclasses import dataclass

from tools.microworld.draws import Draws
from tools.microworld.names import Split
from tools.microworld.program_steps import next_step, opening_step
from tools.microworld.program_table import Step, Table
from tools.microworld.program_words import FRAMES, NOTES, SUBJECTS, ProgramNames, Subject

IMPORTS = {
    "pd": "import pandas as pd",
    "np": "import numpy as np",
    "plt": "import matplotlib.pyplot as plt",
}
"""Imports by the name that they define. All other names are classes and functions of scikit-learn."""
SKLEARN = {
    "train_test_split": "sklearn.model_selection",
    "cross_val_score": "sklearn.model_selection",
    "LinearRegression": "sklearn.linear_model",
    "Ridge": "sklearn.linear_model",
    "LogisticRegression": "sklearn.linear_model",
    "RandomForestRegressor": "sklearn.ensemble",
    "RandomForestClassifier": "sklearn.ensemble",
    "KMeans": "sklearn.cluster",
    "StandardScaler": "sklearn.preprocessing",
    "mean_squared_error": "sklearn.metrics",
    "accuracy_score": "sklearn.metrics",
}


@dataclass(frozen=True)
class Program:
    """One program.

    Attributes:
        text: Python source.
        subject: the subject.
        names: the names of columns, files and functions, which belong to its split.
    """

    text: str
    subject: Subject
    names: tuple[str, ...]


def program(index: int, *, seed: int, split: Split) -> Program:
    """Return program `index` of a split. Most have 3 to 7 steps; one in fifty is longer than most windows."""
    if index < 0:
        raise IndexError(f"program {index}: the index must be 0 or more")
    draws = Draws("program", seed, split, index)
    subject = draws.pick(SUBJECTS)
    names = ProgramNames(draws, split=split)
    table = Table(
        subject=subject,
        frame=draws.pick(FRAMES),
        measures=[names.measure(subject) for _ in range(draws.between(2, 3))],
        groups=[names.group(subject) for _ in range(draws.between(1, 2))],
    )
    length = draws.between(16, 30) if draws.chance(0.02) else draws.between(3, 7)
    steps = [opening_step(table, names, draws)]
    steps += [next_step(table, names, draws) for _ in range(length - 1)]
    writing = _module if draws.chance(0.35) else _script
    body = writing(steps, table, names, draws)
    used = {name for step in steps for name in step.uses}
    head = [f'"""{_title(table, draws)}"""', ""] if draws.chance(0.3) else []
    lines = [*head, *_imports(used), "", *body]
    if draws.chance(0.05):  # another indentation
        lines = [_half_indented(line) for line in lines]
    return Program("\n".join(lines) + "\n" * (not draws.chance(0.03)), subject, tuple(names.drawn))


def _title(table: Table, draws: Draws) -> str:
    subject = table.subject
    return draws.pick(
        (
            f"A look at {draws.pick(subject.files)} by {draws.pick(subject.groups)}.",
            f"What makes the {draws.pick(subject.measures)} of a {subject.row}?",
            f"{draws.pick(subject.files).capitalize()} and their {draws.pick(subject.measures)}.",
        )
    )


def _imports(used: set[str]) -> list[str]:
    lines = [line for name, line in IMPORTS.items() if name in used]
    for module in dict.fromkeys(SKLEARN.values()):
        if wanted := [name for name, home in SKLEARN.items() if home == module and name in used]:
            lines.append(f"from {module} import {', '.join(wanted)}")
    return lines


def _script(steps: list[Step], table: Table, names: ProgramNames, draws: Draws) -> list[str]:
    """Return the steps in order, most with a comment."""
    lines: list[str] = []
    for number, step in enumerate(steps):
        if number:
            lines += ["", ""] if step.defines or steps[number - 1].defines else [""] * draws.chance(0.8)
        if draws.chance(0.6):
            lines.append(f"# {step.says}")
        elif draws.chance(0.02):
            lines.append(f"# {draws.pick(NOTES)}")
        lines += step.lines
    return lines


def _module(steps: list[Step], table: Table, names: ProgramNames, draws: Draws) -> list[str]:
    """Return a function for each step, and the calls of all functions at the end."""
    lines: list[str] = []
    calls: list[str] = []
    for step in steps:
        if step.defines:  # already a function
            lines += ["", *step.lines, ""]
            continue
        function = names.function(step.kind, table.subject)
        takes = "path" if step.kind == "load" else table.frame if table.frame in step.reads else ""
        body = [line.replace(step.path, "path") if step.path else line for line in step.lines]
        gives = table.frame if step.changes else ""
        lines += ["", f"def {function}({takes}):"]
        if draws.chance(0.7):
            lines.append(f'    """{step.says.capitalize()}."""')
        lines += [f"    {line}" if line else line for line in body]
        lines += [f"    return {gives}", ""] if gives else [""]
        argument = step.path if step.kind == "load" else takes
        calls.append(f"{gives} = {function}({argument})" if gives else f"{function}({argument})")
    return [*lines, "", 'if __name__ == "__main__":', *(f"    {call}" for call in calls)]


def _half_indented(line: str) -> str:
    code = line.lstrip(" ")
    return " " * ((len(line) - len(code)) // 2) + code
