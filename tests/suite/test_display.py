"""The output of a session: figures, progress and the summary table, in colour only on a terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from touchstone.interface import display, progress
from touchstone.runs.isolation import Failure, Message, Outcome
from touchstone.runs.trials import Result
from touchstone.specs.verdict import Verdict


def message(phase: str, step: int, steps: int, *, loss: float | None = None, f1: float | None = None) -> Message:
    score = None if f1 is None else {"name": "f1", "value": f1}
    return {"phase": phase, "step": step, "steps": steps, "loss": loss, "score": score}


def verdict(status: Any, *, low: float | None = 0.7, high: float | None = 0.8) -> Verdict:
    return Verdict(
        metric="f1", status=status, value=0.75, n=1, low=low, high=high, confidence=0.99, explanation="why: so"
    )


def result(status: str | None, *, kind: Any = "error", seed: int = 1, name: str = "a-task") -> Result:
    spec = SimpleNamespace(
        name=name, profile="small", overrides={}, division="open" if name.endswith("+open") else "closed"
    )
    trial = cast(Any, SimpleNamespace(spec=spec, engine="loop", seed=seed))
    failure = None if status else Failure(kind, "ValueError: the cause\n  caused by KeyError")
    outcome = Outcome({} if status else None, failure, 12.0, 500 << 20, Path("log"))
    if status is None:
        return Result(trial, outcome)
    low = None if status == "no-expectation" else 0.7
    record = SimpleNamespace(
        verdicts=(verdict(status, low=low, high=None if low is None else 0.8),),
        tokens_per_second=12345.6,
        fraction_of_floor=0.415,
        processes=1,
        memory=SimpleNamespace(host_bytes=3 << 30, device_bytes=None),
        sample_outputs={},
        seconds=61.0,
    )
    return Result(trial, outcome, cast(Any, record), Path("/somewhere/results/m/a.json"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.86371, "0.8637"),
        (12.3149, "12.31"),
        (1.0, "1"),
        (260.81, "260.8"),
        (0.0, "0.0000"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (None, "-"),
    ],
)
def test_figure_has_four_significant_digits(value: float | None, text: str) -> None:
    assert display.figure(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (61.4, "61 s"),
        (119.6, "2 min 00 s"),
        (3599.7, "1 h 00 min"),
        (7384, "2 h 03 min"),
    ],
)
def test_duration_chooses_a_suitable_unit(seconds: float, text: str) -> None:
    assert display.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(None, "-"), (300 << 20, "300 MiB"), (3 << 29, "1.50 GiB")])
def test_size_is_in_binary_units(count: int | None, text: str) -> None:
    assert display.size(count) == text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.6213, "62%"), (0.0996, "10%"), (0.0994, "9.9%"), (0.0412, "4.1%"), (0.0, "0.0%"), (None, "-")],
)
def test_percent_has_one_decimal_below_ten(fraction: float | None, text: str) -> None:
    assert display.percent(fraction) == text


def test_the_summary_table_shows_the_number_of_processes() -> None:
    alone, together = result("as-expected"), result("as-expected", seed=2)
    cast(Any, together.record).processes = 8
    lines = display.as_text(display.summary_table([alone, together]), width=140, colour=False).splitlines()

    assert [line[line.index("loop") :][:7] for line in lines if "loop" in line] == ["loop   ", "loop x8"]


@pytest.mark.parametrize("width", [80, 140])
def test_the_summary_table_puts_the_open_division_last(width: int) -> None:
    results = [result("as-expected", name="a-task+open"), result("worse"), result(None, name="a-task+open")]
    means = [
        ("a-task+open", "loop", "2 seeds", verdict("worse", high=None)),
        ("a-task", "loop", "3 seeds", verdict("worse")),
    ]
    text = display.as_text(display.summary_table(results, means, width=width), width=width, colour=False)

    above, heading, below = text.partition("open division:")
    assert heading
    assert (above.count("a-task "), above.count("a-task+open")) == (2, 0)
    assert (below.count("a-task "), below.count("a-task+open")) == (0, 3)
    assert "from 0.7000" in (below if width == 140 else "from 0.7000")
    assert "open division" not in display.as_text(display.summary_table(results[1:2]), width=140, colour=False)


def test_band_shows_the_only_end_of_a_target() -> None:
    ends = ((0.7, 0.8), (0.7, None), (None, 0.8), (None, None))

    assert [display.band(verdict("as-expected", low=low, high=high)) for low, high in ends] == [
        "0.7000 to 0.8000",
        "from 0.7000",
        "to 0.8000",
        "-",
    ]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_summary_table_fits_a_terminal_without_cutting_words(width: int) -> None:
    results = [result("as-expected"), result("better-than-expected"), result(None)]
    cast(Any, results[0].trial).spec.name = "token-classification+first"
    text = display.as_text(display.summary_table(results, width=width), width=width, colour=False)
    assert max(map(len, text.splitlines())) <= width
    for word in ("floor", "42%", "0.7500", "expected", "failed", "classification+first"):
        assert word in text
    assert (width == 140) == ("0.7000 to 0.8000" in text) == ("token-classification+first" in text)
    assert (width > 80) == ("12,346" in text) == ("3.00 GiB" in text)


def test_time_left_ignores_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    left = progress.TimeLeft()
    for moment, phase, step in [
        (0, "prepare", 0),
        (5, "train", 0),
        (15, "train", 10),
        (15, "evaluate", 0),
        (95, "evaluate", 9),
    ]:
        now = float(moment)
        left.update(message(phase, step, 40))
    assert left.seconds == 30.0, "ten steps took ten seconds, thirty are left; the evaluation's 80 s do not count"
    now = 96.0
    left.update(message("train", 10, 40))
    now = 106.0
    left.update(message("train", 20, 40))
    assert left.seconds == 20.0


def test_time_left_of_a_resumed_run_counts_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    left = progress.TimeLeft()
    left.update(message("train", 30, 40))
    now = 5.0
    left.update(message("train", 35, 40))
    assert left.seconds == 5.0


def test_progress_lines_print_evaluations_but_not_steps() -> None:
    stream = io.StringIO()
    with progress.ProgressLines("a-task loop seed 1", stream=stream) as view:
        view.update(message("prepare", 0, 0))
        view.update(message("evaluate", 10, 10, f1=0.01))
        for step in range(5):
            view.update(message("train", step, 5, loss=1.25))
        view.update(message("evaluate", 10, 10, f1=0.5))
    first, second = stream.getvalue().splitlines()
    assert first == "  a-task loop seed 1: before training  f1 0.0100"
    assert second.startswith("  a-task loop seed 1: step 4/5  loss 1.250  f1 0.5000")


def test_progress_lines_print_a_step_after_a_long_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    stream = io.StringIO()
    with progress.ProgressLines("t", stream=stream) as view:
        for step in range(100):
            now = float(step)
            view.update(message("train", step, 100, loss=1.0))
    assert len(stream.getvalue().splitlines()) == 4, "every twenty seconds of a hundred"


def test_the_progress_bar_shows_the_run_and_is_removed_at_its_end() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, _environ={"TERM": "xterm"})
    with progress.ProgressBar("a-task loop seed 1", console=console) as view:
        view.update(message("train", 3, 12, loss=1.25))
        view.update(message("evaluate", 1, 2, f1=0.5))
        view.progress.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "a-task loop seed 1 evaluate" in text
    assert "1/2" in text
    assert "f1 0.5000" in text
    assert stream.getvalue().rstrip().endswith("\x1b[2K"), "the last thing is that the line is wiped"


def test_the_progress_bar_cuts_nothing_off_on_80_columns() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, _environ={"TERM": "xterm"})
    with progress.ProgressBar("token-classification trainer seed 42", console=console) as view:
        view.update(message("train", 512, 1024, loss=1.25))
        view.update(message("evaluate", 12, 24, f1=0.5))
        view.progress.refresh()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "token-classification trainer seed 42" in text
    assert "12/24" in text
    assert "f1 0.5000" in text
    assert "\u2026" not in text


def test_the_summary_table_shows_every_outcome() -> None:
    results = [result("as-expected"), result("worse"), result("no-expectation")]
    results += [result(None, kind=kind) for kind in ("error", "signal", "exit", "timeout")]
    means = [("a-task", "loop", "3 seeds", verdict("better-than-expected"))]
    text = display.as_text(display.summary_table(results, means), width=120, colour=False)
    for word in ("as expected", "worse", "no expectation", "failed", "killed", "timed out", "better than expected"):
        assert word in text
    assert "0.7000 to 0.8000" in text
    assert "12,346" in text
    assert "42%" in text
    assert "3.00 GiB" in text
    assert "61 s" in text
    assert "\x1b" not in text


def test_verdicts_have_different_colours() -> None:
    green, red, yellow = "\x1b[32m", "\x1b[1;31m", "\x1b[33m"
    for status, colour in (("as-expected", green), ("worse", red), ("no-expectation", yellow)):
        text = display.as_text(display.result_line(result(status)), width=120, colour=True)
        assert colour in text
    assert green not in display.as_text(display.summary_table([result("no-expectation")]), width=120, colour=True)


def test_as_text_escapes_characters_that_the_encoding_lacks() -> None:
    text = display.as_text(display.summary_table([result("as-expected")]), width=120, colour=False, encoding="ascii")
    assert text.isascii()
    assert "as expected" in text


def test_result_line_shows_the_first_cause_of_a_failure() -> None:
    text = display.as_text(display.result_line(result(None)), width=120, colour=False)
    assert text == "  a-task  loop  seed 1  failed  ValueError: the cause"


def test_closing_lines_give_record_paths_relative_to_the_directory() -> None:
    lines = display.closing_lines([result("as-expected")], directory=Path("/somewhere"))
    assert lines == ["records:", "  results/m/a.json"]
    lines = display.closing_lines([result("no-expectation"), result("no-expectation")], directory=Path("/elsewhere"))
    assert lines[:2] == ["not judged: f1 of a-task, profile small: why: so", "records:"], "each reason once"
    assert lines[2] == "  /somewhere/results/m/a.json"
