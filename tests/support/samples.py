"""Small valid specs, records and machines, which tests vary."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from touchstone.engines.training import Evaluation, Execution, Point, Precision, TrainingRun
from touchstone.engines.work import Work
from touchstone.pipelines.pipeline import Score
from touchstone.records.efficiency import Efficiency, Rate, Rates, efficiency_of
from touchstone.records.energy import Energy
from touchstone.records.machine import Hardware, Software, SuiteVersion
from touchstone.records.record import Finished, Launch, Record
from touchstone.specs.spec import Spec, load_spec

SPEC = """
schema = 1
task = "token-classification"

[options]
strategy = "all"

[profiles.embedded]
assert = ["f1"]
timeout_seconds = 60
minutes = 0.5

[profiles.embedded.data]
source = "microworld"
train = 20
validation = 10

[profiles.embedded.checkpoint]
source = "microworld"
architecture = "bert"
layers = 1
hidden = 8
heads = 2

[profiles.embedded.recipe]
epochs = 1
batch_size = 4
learning_rate = 1e-3

[variants.first.options]
strategy = "first"
"""


OPEN = """
[variants.fast]
division = "open"

[variants.fast.recipe]
batch_size = 8
learning_rate = 2e-3
"""
"""A variant of the open division, to append to `SPEC`."""


def write_spec(folder: Path, *, text: str = SPEC, name: str = "ner") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def sample_spec(folder: Path, *, variant: str | None = None) -> Spec:
    return load_spec(write_spec(folder), profile="embedded", variant=variant)


def open_spec(folder: Path) -> Spec:
    """Return a variant of the open division, from a file with the name of `sample_spec`'s."""
    return load_spec(write_spec(folder, text=SPEC + OPEN), profile="embedded", variant="fast")


def hardware(**changes: Any) -> Hardware:
    fields: dict[str, Any] = {
        "id": "0123456789abcdef",
        "name": "xeon-2c-24g",
        "device": "cpu",
        "cpu_model": "Xeon",
        "cpu_cores": 2,
        "cpu_threads": 2,
        "memory_bytes": 24 * 2**30,
        "gpu_model": None,
        "gpu_count": 0,
        "gpu_memory_bytes": None,
        "gpu_compute_capability": None,
        "gpu_driver": None,
    }
    return Hardware(**(fields | changes))


def software(**changes: Any) -> Software:
    fields: dict[str, Any] = {
        "python": "3.11.7",
        "platform": "Linux",
        "packages": {"torch": "2.13.0"},
        "flags": {"threads": "2"},
        "environment": {},
        "attention": "sdpa",
    }
    return Software(**(fields | changes))


def launch(processes: int) -> Launch:
    return Launch(launcher="torchrun", processes=processes, nodes=1, host_bytes=(2**29,) * processes, device_bytes=None)


def scores(value: float) -> tuple[Score, ...]:
    return (Score("f1", value, 30, True, "seqeval|mode:strict"), Score("loss", 0.2, 90, False, "nll", upper=None))


def training_run(*, f1: float = 0.9, seconds: float = 10.0, steps: int = 5) -> TrainingRun:
    return TrainingRun(
        trajectory=[Point(i + 1, 4 * (i + 1), 50 * (i + 1), 2.0 * (i + 1), 1 / (i + 1), 1e-3) for i in range(steps)],
        evaluations=[Evaluation(0, 0, scores(0.05), 0.5), Evaluation(1, steps, scores(f1), 0.5)],
        phases={"prepare": 1.0, "train": seconds, "evaluate": 1.0},
        step_seconds=[seconds / steps] * steps,
        tokens=1000,
        padded_tokens=1200,
        host_bytes=[2**29],
        parameters=10_000,
        sample_outputs={"before": [], "after": []},
    )


def rates(**changes: Any) -> Rates:
    """Return rates of 200 GFLOP/s for products and 50 GB/s for memory."""
    found: dict[str, Any] = {"gemm": (200e9, "512 x 512"), "attention": (100e9, "sdpa"), "memory": (50e9, "copy")}
    return Rates(**{name: Rate(per_second=value, source=source) for name, (value, source) in found.items()} | changes)


def work(**changes: Any) -> Work:
    """Return work of 0.5 s of arithmetic and 0.1 s of AdamW at the rates above."""
    return Work(**{"flops": 1e11, "optimizer_bytes": 5 * 10**9, "state_bytes": 160_000} | changes)


def efficiency(*, seconds: float = 10.0) -> Efficiency:
    return efficiency_of(work(), rates=rates(), train_seconds=seconds)


def record(
    spec: Spec, *, seed: int = 0, run: TrainingRun | None = None, precision: Precision = "fp32", **changes: Any
) -> Record:
    """Return a record; `changes` are fields of `Finished`."""
    run = run or training_run()
    fields: dict[str, Any] = {
        "engine": "loop",
        "dataset_fingerprint": "sha256:abc",
        "verdicts": (),
        "efficiency": efficiency(seconds=run.phases["train"]),
        "energy": Energy.unknown("no counter"),
        "hardware": hardware(),
        "software": software(),
        "suite": SuiteVersion(version="0.1.0", commit=None, dirty=None),
        "started": datetime(2026, 1, 1, 12, 0, tzinfo=timezone.utc),
        "finished": datetime(2026, 1, 1, 12, 1, tzinfo=timezone.utc),
    }
    execution = Execution(seed=seed, precision=precision)
    return Record.of(Finished(spec=spec, run=run, execution=execution, **fields | changes))
