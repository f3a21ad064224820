"""What a comparison found, and how it is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from suite.comparing.difference import Difference, Sample

LEGEND = (
    "A value is the mean ± standard deviation over seeds. B is worse or better where p < 0.01 (Welch's t-test) and "
    "the change is more than 5 % (of a metric: more than its spread over seeds) and more than the runs' own spread."
)
ExitCode = Literal[0, 1, 2, 3]
MEANING = {
    0: "B is nowhere significantly worse than A",
    1: "B is significantly worse than A",
    2: "nothing can be compared, or something was measured otherwise",
    3: "a counterpart is missing",
}


@dataclass(frozen=True)
class Row:
    """One measure of a pair. `difference` is None where it only shows another one from its other side (tokens/s and
    time).
    """

    measure: str
    unit: str
    a: Sample
    b: Sample
    difference: Difference | None


@dataclass(frozen=True)
class Pair:
    """Runs that can be compared, one record a seed on each side."""

    title: str
    sides: tuple[str, str]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    """What differs between the sides beside the result: software, flags, environment; what was left out."""


@dataclass(frozen=True)
class Unpaired:
    """Runs that cannot be compared. `missing`: the other side has none of them at all."""

    title: str
    reason: str
    missing: bool


@dataclass(frozen=True)
class Comparison:
    names: tuple[str, str]
    pairs: tuple[Pair, ...]
    unpaired: tuple[Unpaired, ...]

    @property
    def tested(self) -> bool:
        """Whether anything came to a verdict."""
        outcomes = {row.difference.outcome for pair in self.pairs for row in pair.rows if row.difference}
        return bool(outcomes - {"no verdict"})

    @property
    def exit_code(self) -> ExitCode:
        """0 same or better, 1 a significant regression, 2 nothing comparable or measured otherwise, 3 missing
        counterparts.
        """
        if any(row.difference and row.difference.outcome == "worse" for pair in self.pairs for row in pair.rows):
            return 1
        if not self.pairs or any(not one.missing for one in self.unpaired):
            return 2
        return 3 if self.unpaired else 0


def render(comparison: Comparison, console: Console) -> None:
    """Show it: a table a pair, what could not be compared, and what the exit code says."""
    console.print(Text.assemble("A = ", comparison.names[0], ", B = ", comparison.names[1]))
    for pair in comparison.pairs:
        table = Table(title=escape(pair.title), title_justify="left", header_style="bold")
        for heading in ("", f"A: {pair.sides[0]}", f"B: {pair.sides[1]}", "B / A", "B is", "because"):
            table.add_column(
                escape(heading), justify="left" if heading in ("", "B is", "because") else "right", overflow="fold"
            )
        for row in pair.rows:
            table.add_row(*_cells(row))
        console.print(table)
        for note in pair.notes:
            console.print(Text(f"  {note}", style="dim"))
    if comparison.unpaired:
        console.print(Text("Not compared", style="bold"))
        for one in comparison.unpaired:
            console.print(Text(f"  {one.title}: {one.reason}"))
    console.print(Text(LEGEND, style="dim"))
    code, meaning = comparison.exit_code, MEANING[comparison.exit_code]
    if code == 0 and not comparison.tested:
        meaning = "nothing could be tested: give at least two seeds a side"
    console.print(Text(f"{meaning} (exit code {code})", style="bold red" if code == 1 else "bold"))


STYLES = {"worse": "red", "better": "green", "same": "", "no verdict": "dim"}


def _cells(row: Row) -> tuple[str | Text, ...]:
    difference = row.difference
    ratio = difference.ratio if difference else row.b.mean / row.a.mean if row.a.n and row.b.n and row.a.mean else None
    return (
        Text(f"{row.measure} [{row.unit}]" if row.unit else row.measure),
        shown(row.a),
        shown(row.b),
        "" if ratio is None else f"{ratio:.3f}",
        Text(difference.outcome, style=STYLES[difference.outcome]) if difference else "",
        Text(difference.reason if difference else ""),
    )


def shown(sample: Sample) -> str:
    """The mean, to the digit that its spread leaves certain: 0.8899 ± 0.0030, 835 ± 155."""
    if not sample.n:
        return "-"
    mean, sd = sample.mean, sample.sd
    if not sd or not math.isfinite(sd):  # one value, equal ones, or what has no spread
        text = f"{mean:,.0f}" if math.isfinite(mean) and abs(mean) >= 10_000 else f"{mean:.5g}"
        return text if sd is None else f"{text} ± {sd:g}"
    decimals = max(0, 1 - math.floor(math.log10(sd)))
    return f"{mean:,.{decimals}f} ± {sd:,.{decimals}f}"
