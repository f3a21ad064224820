"""Tables of the throughput tests: stages next to their peers, engines next to Trainer, audits next to their goals."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import get_args

from rich import box
from rich.table import Table
from rich.text import Text

from touchstone.records.timing import AuditTime, Peer, Stage, TaskSpeed, WatchTime

PEERS: tuple[Peer, ...] = get_args(Peer)
HEADINGS = {"tokenizer": "of tokenizer", "course": "x course", "library": "x library", "copy": "copies"}
"""Column headings. For tokenizer and copy, the time of the stage relative to them; for the others, its speed-up."""


def table(stages: Sequence[Stage]) -> Table:
    """Build the table of stages. Ratios are of medians; brackets show the range of ratios of adjacent rounds."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    shown.add_column("stage", no_wrap=True)
    for heading in ("ns/token", *(HEADINGS[peer] for peer in PEERS), "at 1, 10, 100x", "bytes"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("goal", no_wrap=True)
    for stage in stages:
        shown.add_row(
            stage.name,
            number(stage.ours.ns_per_token),
            *(_ratio(stage, peer) for peer in PEERS),
            ", ".join(number(each.ns_per_token) for each in stage.growth),
            number(stage.growth[-1].bytes_per_token) if stage.growth else "",
            _goal(stage),
        )
    return shown


def speed_table(speeds: Sequence[TaskSpeed]) -> Table:
    """Build the table of engines, for training and evaluation steps.

    It shows each engine's median step and its speed-up over the first engine. Brackets show the smallest and largest
    speed-up of adjacent rounds.
    """
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for heading in ("task", "what", "engine", "precision"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("step", "tokens/s", "all steps", "x trainer", "of floor"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for speed in speeds:
        for what, measured in (("training", speed.engines), ("evaluation", speed.evaluation)):
            for steps in measured:
                first = steps is measured[0]
                least, largest = steps.spread(measured[0])
                fraction = steps.fraction_of_floor
                in_all = steps.seconds * speed.steps_in_all
                shown.add_row(
                    speed.task if first and what == "training" else "",
                    what if first else "",
                    steps.engine,
                    steps.precision,
                    f"{1e3 * steps.seconds:,.0f} ms",
                    f"{steps.tokens / steps.seconds:,.0f}",
                    f"{in_all:,.0f} s" if what == "training" else "",
                    "" if first else f"{steps.ratio(measured[0]):.2f} ({least:.2f}-{largest:.2f})",
                    "" if fraction is None else f"{100 * fraction:.0f}%",
                    end_section=steps is measured[-1] and measured is (speed.evaluation or speed.engines),
                )
    return shown


def audit_lines(audits: Sequence[AuditTime], watch: WatchTime | None) -> list[str]:
    """Return a line on each audit, and one on `watch`."""
    lines = [
        f"audit, budget {each.budget}: {statistics.median(each.seconds):.1f} s for {each.probes} probes, "
        f"as long as {each.steps:.1f} training steps; goal {each.most:g} s {_said(each.reached)}"
        for each in audits
    ]
    if watch is not None:
        lines.append(
            f"watch: {statistics.median(watch.ratios):.3f} times as long as {watch.steps} steps without it "
            f"({min(watch.ratios):.3f}-{max(watch.ratios):.3f}); goal {watch.most:g} {_said(watch.reached)}"
        )
    return lines


def _said(reached: bool) -> str:
    return "reached" if reached else "missed"


def _ratio(stage: Stage, peer: Peer) -> str:
    if peer not in stage.peers:
        return ""
    ratio, (least, largest) = stage.ratio(peer), stage.spread(peer)
    if peer == "tokenizer":
        return f"{number(100 * ratio)}% ({number(100 * least)}-{number(100 * largest)})"
    if peer == "copy":
        return number(ratio)
    return f"{number(1 / ratio)} ({number(1 / largest)}-{number(1 / least)})"


def _goal(stage: Stage) -> Text:
    if stage.goal is None:
        return Text("")
    most = stage.goal.most
    text = f"< {number(100 * most)}%" if stage.goal.peer == "tokenizer" else f"> {number(1 / most)}x"
    return Text(f"{text} ok", style="green") if stage.reached else Text(f"{text} missed", style="bold red")


def number(value: float) -> str:
    """Format a number with two significant digits, or without decimals from 10 on."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"
