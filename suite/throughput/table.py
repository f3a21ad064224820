"""The stages beside what they are judged against, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from rich import box
from rich.table import Table
from rich.text import Text

from touchstone.records.timing import Peer, Stage, TaskSpeed

PEERS: tuple[Peer, ...] = get_args(Peer)
HEADINGS = {"tokenizer": "of tokenizer", "course": "x course", "library": "x library", "copy": "copies"}
"""The tokenizer and the copy say how much time the stage adds, the others how many times faster it is."""


def table(stages: Sequence[Stage]) -> Table:
    """Ratios are of medians; in brackets the least and the largest of two rounds run in turn."""
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
    """Each engine's median step, and how many times faster that is than the first's; in brackets the least and the
    largest of two rounds run in turn. Then its evaluation, likewise."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for heading in ("task", "what", "engine", "precision"):
        shown.add_column(heading, no_wrap=True)
    for heading in ("step", "tokens/s", "all steps", "x trainer", "of floor"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for speed in speeds:
        for what, raced in (("training", speed.engines), ("evaluation", speed.evaluation)):
            for steps in raced:
                first = steps is raced[0]
                least, largest = steps.spread(raced[0])
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
                    "" if first else f"{steps.ratio(raced[0]):.2f} ({least:.2f}-{largest:.2f})",
                    "" if fraction is None else f"{100 * fraction:.0f}%",
                    end_section=steps is raced[-1] and raced is (speed.evaluation or speed.engines),
                )
    return shown


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
    """Two digits, or all those before the point."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"
