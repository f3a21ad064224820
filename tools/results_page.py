"""Write docs/results.md from the committed expectations and records.

    python tools/results_page.py > docs/results.md

A test compares the page with this output, so its numbers cannot drift from the files they come from.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from touchstone.comparing.times import render_times, times_to_metric
from touchstone.interface.display import figure
from touchstone.records.record import read_records
from touchstone.records.timing import Speed
from touchstone.specs.expectation import Expectation, load_expectations
from touchstone.specs.spec import Spec, available_specs, load_spec, profiles, variants
from touchstone.specs.verdict import judge

ROOT = Path(__file__).parents[1]
PROFILES = ("embedded", "small", "course")
HEAD = """\
# Results

Written by `python tools/results_page.py > docs/results.md` from
[`suite/specs/expectations/`](../suite/specs/expectations) and [`results/`](../results).

## What is expected

A run passes if its metric lies in the band: the 99% prediction interval for one more run, computed from the values of
earlier runs. Bands from few seeds are wide: half the band is 11.5 standard deviations with 3 runs, 4.4 with 6, and 3.4
with 10. Measured values come from `touchstone calibrate`. Published ones are read from model cards that all used one
seed, so their spread is that of machines and versions, which is a lower bound for the spread of seeds. In the profile
`small`, translation and summarization train from scratch for minutes and generate little that is right yet: judge them
by the loss.
"""
STEPS = """\
## Training steps and evaluation

Profile `small`, real data. Steps of all engines are interleaved, so the ratios hold even on a machine whose speed
varies. `x trainer` compares with the float32 Trainer; the range of the rounds is in brackets. `floor` is the shortest
time in which this machine could have done the same work, as a percentage of the time taken. Evaluation starts with
transformers.Trainer as the course calls it (`course`).
"""
RUNS = """\
## Whole runs

Seconds of training until the expected metric (profile `small`). These runs were made at different times on shared
machines whose speed varies by about 20%; for ratios, trust the interleaved steps above.
"""


def page() -> str:
    parts = [HEAD, *expectations(), STEPS]
    records = [record for record in read_records(ROOT / "results") if record.spec.profile == "small"]
    for path in sorted((ROOT / "results").glob("*/speed.small.json")):
        parts += steps(Speed.read(path))
    out = io.StringIO()
    render_times(times_to_metric(records), Console(file=out, width=10_000), markdown=True)
    parts += [RUNS, "\n".join(line.strip() for line in out.getvalue().splitlines())]
    return "\n".join(parts).rstrip() + "\n"


def expectations() -> Iterator[str]:
    yield "| task | profile | metric | mean ± sd | runs | band of one run |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for profile in PROFILES:
        for name in available_specs():
            if profile in profiles(name):
                for variant in (None, *variants(name, profile=profile)):
                    spec = load_spec(name, profile=profile, variant=variant)
                    if spec.division == "closed":
                        yield from (row(spec, expectation) for expectation in load_expectations(spec).values())
    yield ""


def row(spec: Spec, expectation: Expectation) -> str:
    values = expectation.values
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    verdict = judge([statistics.fmean(values)], expectation=expectation)
    band = "-" if verdict.low is None or verdict.high is None else f"{figure(verdict.low)} to {figure(verdict.high)}"
    runs = f"{len(values)} {'seed' if expectation.kind == 'measured' else 'model card'}{'s' if len(values) > 1 else ''}"
    mean = f"{figure(statistics.fmean(values))} ± {spread:.2g}"
    return f"| {spec.name} | {spec.profile} | {expectation.metric} | {mean} | {runs} | {band} |"


def steps(speed: Speed) -> Iterator[str]:
    rounds = len(speed.tasks[0].engines[0].rounds)
    machine = f"{speed.hardware.cpu_cores} cores of an {speed.hardware.cpu_model.partition(' (')[0]}"
    yield f"### {machine}, {rounds} rounds\n"
    yield "| task | what | engine | median | x trainer | floor |"
    yield "| --- | --- | --- | ---: | ---: | ---: |"
    for task in speed.tasks:
        for what, timed in (("step", task.engines), ("evaluation", task.evaluation)):
            for each in timed:
                first = each is timed[0]
                least, largest = each.spread(timed[0])
                ratio = "" if first else f"{each.ratio(timed[0]):.1f} ({least:.1f} to {largest:.1f})"
                floor = "" if each.fraction_of_floor is None else f"{each.fraction_of_floor:.0%}"
                heads = (task.task if first and what == "step" else "", what if first else "")
                name = f"{each.engine} {each.precision}"
                yield f"| {heads[0]} | {heads[1]} | {name} | {1e3 * each.seconds:,.0f} ms | {ratio} | {floor} |"
    yield ""


if __name__ == "__main__":
    print(page(), end="")
