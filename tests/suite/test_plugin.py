"""`pytest suite/` end to end: what it prints and records, how it fails, and how it stops."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest

from tests.support.environment import environment
from tests.support.hub_stand_in import TOKEN, serving
from tests.support.processes import assert_gone
from touchstone.interface.workers import group_of
from touchstone.records.record import Record, read_record, read_records
from touchstone.specs.expectation import Expectation, Measured, load_expectations, save_expectations
from touchstone.specs.spec import load_spec
from touchstone.specs.verdict import judge

ROOT = Path(__file__).parents[2]
SPEC = """\
schema = 1
task = "token-classification"

[options]
max_length = 128

[profiles.embedded]
assert = ["accuracy"]
timeout_seconds = 100

[profiles.embedded.data]
source = "microworld"
train = 64
validation = 32

[profiles.embedded.checkpoint]
source = "microworld"
architecture = "bert"
layers = 1
hidden = 32
heads = 2

[profiles.embedded.recipe]
epochs = 2
batch_size = 16
learning_rate = 2e-3
"""


class Finished:
    def __init__(self, process: subprocess.CompletedProcess[str], results: Path) -> None:
        self.code = process.returncode
        self.text = process.stdout + process.stderr
        self.results = results


def command(spec: Path, results: Path, *options: str, room: str = "training") -> list[str]:
    arguments = ["--spec", str(spec), "--results", str(results), "--engine", "trainer", *options]
    return [sys.executable, "-m", "pytest", str(ROOT / "suite" / room), "-p", "no:cacheprovider", *arguments]


def run(spec: Path, *options: str, **variables: str) -> Finished:
    """Run a session from a directory outside the project."""
    results = spec.parent / "results"
    process = subprocess.run(
        command(spec, results, *options),
        capture_output=True,
        text=True,
        cwd=spec.parent,
        env=environment(**variables),
        timeout=240,
    )
    return Finished(process, results)


def write_spec(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "tiny.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_spec(tmp_path / "house")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A session that trains."""
    return run(write_spec(tmp_path_factory.mktemp("real")), "--seeds", "2,1")


@pytest.fixture(scope="module")
def record(real: Finished) -> str:
    return str(next(real.results.glob("*/*.json")))


def replayed(spec: Path, record: str, *options: str, job: str = "replay", **variables: str) -> Finished:
    """Run a session without training: each run returns this record, judged by the spec's expectations."""
    loaded, template = load_spec(spec, profile="embedded"), read_record(Path(record))
    verdict = judge([accuracy(record)], expectation=load_expectations(loaded).get("accuracy"), metric="accuracy")
    record = str(spec.parent / "record.json")
    Path(record).write_text(template.model_copy(update={"verdicts": (verdict,)}).model_dump_json())
    return run(
        spec,
        "-p",
        "tests.support.stand_in",
        *options,
        STAND_IN=f"tests.support.jobs:{job}",
        REPLAYED=record,
        **variables,
    )


def expect(spec: Path, record: str, values: Sequence[float]) -> None:
    """Write an expectation with these values, measured on the record's data."""
    loaded = load_spec(spec, profile="embedded")
    expectation = Expectation(
        metric="accuracy",
        values=tuple(values),
        seeds=tuple(range(1, len(values) + 1)),
        higher_is_better=True,
        lower=0,
        upper=1,
        spec_hash=loaded.hash,
        provenance=Measured(
            hardware="some-machine (0123456789abcdef)",
            software={"torch": "2.13.0"},
            engine="trainer",
            precision="fp32",
            date=date(2026, 1, 31),
            dataset_fingerprint=read_record(Path(record)).dataset_fingerprint,
        ),
    )
    save_expectations(loaded, [expectation])
    assert load_expectations(loaded)


def accuracy(record: str) -> float:
    return next(score.value for score in read_record(Path(record)).quality if score.name == "accuracy")


def test_a_session_trains_and_writes_records(real: Finished) -> None:
    assert real.code == 0, real.text
    assert "touchstone: profile embedded, device cpu, precision fp32, seeds 2,1" in real.text
    assert "versions: torch " in real.text
    assert (
        "  tiny trainer seed 2: before training  accuracy " in real.text or "seed 2: before training  f1 " in real.text
    )
    assert "  tiny  trainer  seed 1  accuracy 0." in real.text
    assert "3 passed" in real.text, "two seeds and their mean"
    records = read_records(real.results)
    assert {record.seed for record in records} == {1, 2}
    for record in records:
        assert record.dataset_fingerprint.startswith("sha256:")
        assert [verdict.metric for verdict in record.verdicts] == ["accuracy"]
        assert record.phase_seconds["train"] > 0
        assert 0 < record.tokens.real <= record.tokens.padded
        assert record.before_training
    assert len({record.dataset_fingerprint for record in records}) == 1


def test_a_missing_expectation_is_reported(real: Finished) -> None:
    assert "no expectation" in real.text
    assert "as expected" not in real.text


def test_the_summary_shows_figures_and_record_paths(real: Finished) -> None:
    summary = real.text[real.text.index(" training =") :]
    header = next(line for line in summary.splitlines() if "memory" in line)
    for column in ("task", "engine", "seed", "metric", "value", "band", "verdict", "time", "tokens/s", "floor"):
        assert column in header
    assert "mean accuracy" in summary
    assert "  results/" in summary, "paths are relative to the working directory"


def test_output_that_is_piped_has_no_colour(real: Finished) -> None:
    assert "\x1b" not in real.text


def test_runs_with_different_seeds_differ(real: Finished) -> None:
    """The seed reaches the run."""
    first, second = (record.trajectory.points[-1].loss for record in read_records(real.results))
    assert first != second


@pytest.fixture(scope="module")
def parallel(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A session that trains in two workers of pytest-xdist."""
    spec = write_spec(tmp_path_factory.mktemp("parallel"))
    return run(spec, "-n", "2", "--engine", "loop", "--seeds", "2,1")


def test_workers_show_and_record_the_same_runs_as_one_process(real: Finished, parallel: Finished) -> None:
    assert parallel.code == 0, parallel.text
    assert ", 2 runs at a time" in parallel.text
    assert "6 passed" in parallel.text, "two engines with two seeds each and their means"
    for engine in ("trainer", "loop"):
        for seed in (1, 2):
            assert parallel.text.count(f"  tiny  {engine}  seed {seed}  accuracy 0.") == 1
            assert f"  results/{record_of(parallel, engine=engine, seed=seed).hardware.folder}/tiny" in parallel.text
    assert parallel.text.count("mean accuracy") == 2, "one for each engine, from the worker that had all its seeds"
    for seed in (1, 2):
        alone, other = record_of(real, engine="trainer", seed=seed), record_of(parallel, engine="trainer", seed=seed)
        assert alone.quality == other.quality


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("suite/training/test_training.py::test_x[causal-lm+key-tokens-loop-seed12]", "causal-lm+key-tokens-loop"),
        ("suite/training/test_training.py::test_mean[causal-lm+key-tokens-loop]", "causal-lm+key-tokens-loop"),
        ("suite/properties/test_spans.py::test_x[a-seed1]", "suite/properties/test_spans.py::test_x[a-seed1]"),
    ],
)
def test_group_of_puts_runs_and_their_mean_in_one_group(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group


def test_the_record_of_a_run_in_a_worker_says_so(real: Finished, parallel: Finished) -> None:
    assert "PYTEST_XDIST_WORKER_COUNT" not in record_of(real, engine="trainer", seed=1).software.environment
    record = record_of(parallel, engine="trainer", seed=1)
    assert record.software.environment["PYTEST_XDIST_WORKER_COUNT"] == "2"
    assert record.energy.joules is None
    assert "other runs of this session" in str(record.energy.reason)


def test_a_failure_in_a_worker_is_explained(spec: Path, record: str) -> None:
    expect(spec, record, [0.97, 0.98, 0.96, 0.97])
    session = replayed(spec, record, "--seeds", "7", "-n", "2")
    assert session.code == 1, session.text
    assert "accuracy is worse: " in session.text
    assert "1 failed" in session.text


def test_a_wrong_option_is_reported_once_with_workers(spec: Path) -> None:
    session = run(spec, "-n", "2", "--task", "masked-lm")
    assert session.code == 4, session.text
    assert session.text.count("--task masked-lm: ") == 1


def test_throughput_refuses_workers(spec: Path) -> None:
    process = subprocess.run(
        command(spec, spec.parent / "results", "-n", "2", room="throughput"),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=240,
    )
    assert process.returncode == 4, process.stdout + process.stderr
    assert "omit -n" in process.stdout + process.stderr


def record_of(finished: Finished, *, engine: str, seed: int) -> Record:
    return next(r for r in read_records(finished.results) if (r.engine, r.seed) == (engine, seed))


def test_a_launch_of_two_processes_makes_one_record(spec: Path, record: str) -> None:
    alone = read_record(Path(record))
    finished = run(
        spec, "--seeds", str(alone.seed), "--launch", "torchrun --standalone --nproc-per-node 2", "--timeout", "200"
    )

    assert finished.code == 0, finished.text
    assert "each run started by torchrun --standalone --nproc-per-node 2" in finished.text
    assert "trainer x2" in finished.text
    (path,) = finished.results.glob("*/*.json")
    together = read_record(path)
    assert together.launch is not None
    assert (together.launch.launcher, together.launch.processes, together.launch.nodes) == ("torchrun", 2, 1)
    assert max(together.launch.host_bytes) == together.memory.host_bytes
    assert (alone.spec, alone.dataset_fingerprint) == (together.spec, together.dataset_fingerprint)
    assert alone.tokens.real == together.tokens.real, "tokens are those of both"
    assert [(q.name, q.n) for q in alone.quality] == [(q.name, q.n) for q in together.quality]
    assert [p.samples for p in alone.trajectory.points] == [p.samples for p in together.trajectory.points]
    assert alone.sample_outputs.keys() == together.sample_outputs.keys()
    # Without dropout so far, only the order of float32 sums differs: each rank has half of the examples.
    assert [q.value for q in alone.before_training] == pytest.approx(
        [q.value for q in together.before_training], rel=1e-5
    )


def test_a_metric_below_its_band_fails_with_an_explanation(spec: Path, record: str) -> None:
    expect(spec, record, [0.97, 0.98, 0.96, 0.97])
    session = replayed(spec, record, "--seeds", "7", "-x")
    assert session.code == 1, session.text
    assert "accuracy is worse: " in session.text
    assert f"{accuracy(record):.6g} is below [" in session.text
    assert "4 runs measured on some-machine (0123456789abcdef) with trainer in fp32, 2026-01-31" in session.text
    assert str(spec.parent / "expectations" / "tiny.embedded.json") in session.text
    assert "--seeds 8-10" in session.text
    assert "touchstone calibrate tiny --profile embedded" in session.text
    assert len(list(session.results.glob("*/*.seed7.json"))) == 1, "a run outside its band is recorded too"


def test_a_metric_above_its_band_fails(spec: Path, record: str) -> None:
    expect(spec, record, [0.10, 0.11, 0.12, 0.11])
    session = replayed(spec, record)
    assert session.code == 1, session.text
    assert "accuracy is better than expected: " in session.text
    assert "Too good is suspicious" in session.text


def test_a_metric_in_its_band_passes_and_so_does_the_mean(spec: Path, record: str) -> None:
    value = accuracy(record)
    expect(spec, record, [value - 0.01, value + 0.01, value - 0.005, value + 0.005])
    session = replayed(spec, record, "--seeds", "1-3", "-v")
    assert session.code == 0, session.text
    assert session.text.count("] PASSED") == 4, "three seeds and their mean"
    assert "as expected" in session.text
    assert "3 seeds" in session.text


OPEN = """
[variants.fast]
division = "open"

[variants.fast.recipe]
batch_size = 8
"""


def test_the_open_division_must_reach_the_quality_of_the_closed_one(spec: Path, record: str) -> None:
    spec.write_text(SPEC + OPEN)
    expect(spec, record, [0.10, 0.11, 0.12, 0.11])
    session = run(spec, "--task", "tiny+fast", "--seeds", "3")
    assert session.code == 0, session.text
    assert "open division (another recipe, to the same quality): tiny+fast" in session.text
    assert re.search(r"tiny\+fast +trainer +3 +accuracy +0\.\d+ +from 0\.\d+ +as expected", session.text)
    summary = session.text[session.text.index(" training =") :]
    assert summary.index("open division:") < summary.index("tiny+fast")
    (verdict,) = read_records(session.results)[0].verdicts
    assert "the target from the closed division: one-sided 95%" in verdict.explanation

    expect(spec, record, [0.997, 0.998, 0.999, 0.998])
    session = run(spec, "--task", "tiny+fast", "--seeds", "3")
    assert session.code == 1, session.text
    assert re.search(r"is worse: 0\.\d+ is below 0\.99\d+, the target from the closed", session.text)
    assert f"improve the recipe ([variants.fast.recipe] in {spec})" in session.text
    assert "calibrate" not in session.text


def test_the_open_division_is_not_trained_by_default(spec: Path, record: str) -> None:
    spec.write_text(SPEC + OPEN)
    session = replayed(spec, record)
    assert session.code == 0, session.text
    assert "1 passed" in session.text
    assert "tiny+fast" not in session.text
    assert "open division" not in session.text


def test_expectations_do_not_apply_to_other_data(spec: Path, record: str, tmp_path: Path) -> None:
    expect(spec, record, [0.97, 0.98, 0.96, 0.97])
    session = replayed(spec, record, "--dataset", f"token-classification={tmp_path}", "--seeds", "1,2")
    assert "expectations do not apply with --dataset or --checkpoint" not in session.text, "a skip's reason needs -rs"
    assert "1 skipped" in session.text


@pytest.mark.parametrize(
    ("job", "verdict", "cause"), [("first_killed", "killed", "SIGKILL"), ("first_fails", "failed", "no column 'tags'")]
)
def test_a_broken_run_fails_and_the_next_one_starts(
    spec: Path, record: str, job: str, verdict: str, cause: str
) -> None:
    session = replayed(spec, record, "--seeds", "1,2", "-rs", job=job)
    assert session.code == 1, session.text
    assert "1 failed, 1 passed, 1 skipped" in session.text
    assert cause in session.text
    summary = session.text[session.text.index(" training =") :]
    assert verdict in summary
    assert "missing: [1]" in session.text, "the mean needs every seed"
    assert len(list(session.results.glob("*/*.seed2.json"))) == 1
    assert not list(session.results.glob("*/*.seed1.json"))


def test_the_session_stops_at_the_first_failure_with_x(spec: Path, record: str) -> None:
    session = replayed(spec, record, "--seeds", "1,2", "-x", job="first_fails")
    assert session.code == 1, session.text
    assert "stopping after 1 failures" in session.text
    assert not list(session.results.glob("*/*.json"))


def test_a_hanging_run_is_stopped_at_its_timeout(spec: Path, record: str) -> None:
    pids = spec.parent / "pids"
    session = replayed(spec, record, "--seeds", "2", "--timeout", "2s", job="second_hangs", PIDS=str(pids))
    assert session.code == 1, session.text
    assert "had not finished after 2 s" in session.text
    assert "in second_hangs" in session.text, "the stack shows where it hung"
    assert "timed out" in session.text
    assert_gone([int(pid) for pid in pids.read_text().split()])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_finished_records_and_ends_all_processes(
    spec: Path, record: str, number: signal.Signals
) -> None:
    pids, results = spec.parent / "pids", spec.parent / "results"
    variables = {"STAND_IN": "tests.support.jobs:second_hangs", "REPLAYED": record, "PIDS": str(pids)}
    with subprocess.Popen(
        command(spec, results, "-p", "tests.support.stand_in", "--seeds", "1,2,3"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=spec.parent,
        env=environment(**variables),
        # A shell's background job ignores Ctrl-C, and hands that down to whatever it starts: these tests, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 120
        while not (pids.exists() and pids.read_text().endswith("\n")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        text, _ = process.communicate(timeout=60)
    assert process.returncode == 2, text
    assert [path.stem.rpartition("seed")[2] for path in results.glob("*/*.json")] == ["1"]
    assert " training =" in text, "finished runs are shown"
    assert_gone([int(pid) for pid in pids.read_text().split()])


def test_a_record_that_cannot_be_written_is_kept_in_another_place(spec: Path, record: str) -> None:
    session = replayed(spec, record, job="blocks_results", RESULTS=str(spec.parent / "results"))
    assert session.code == 1, session.text
    line = next(line for line in session.text.splitlines() if line.startswith("The record of this run was written to "))
    kept = Path(line.removeprefix("The record of this run was written to ").removesuffix(" instead"))
    assert read_record(kept).seed == 42


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "warp"], "--engine warp: there is no engine 'warp'; possible: trainer, loop"),
        (["--seeds", "one"], "--seeds one: 'one' is not a seed"),
        (["--results", "/proc/none"], "--results /proc/none: cannot write a record there"),
        (["--save", "/proc/none"], "--save /proc/none: cannot write a checkpoint there"),
        (["--push-to", "my model"], "--push-to my model: not a valid name of a hub repository"),
        (["--device", "mps"], "--device mps: possible: auto, cpu, cuda, cuda:N"),
    ],
)
def test_a_wrong_option_is_one_usage_error(spec: Path, options: list[str], message: str) -> None:
    session = run(spec, *options)
    assert session.code == pytest.ExitCode.USAGE_ERROR, session.text
    assert session.text.count("ERROR: ") == 1
    assert f"ERROR: {message}" in session.text
    assert "Traceback" not in session.text


def test_properties_run_before_training_in_any_order_of_arguments() -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "suite/training",
            "suite/properties",
            "--collect-only",
            "-q",
            "-p",
            "no:cacheprovider",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=240,
    )
    assert process.returncode == 0, process.stdout
    rooms = [line.split("/")[1] for line in process.stdout.splitlines() if line.startswith("suite/")]
    assert sorted(rooms) == rooms, "properties before training"
    assert set(rooms) == {"properties", "training"}
    trials = [line for line in process.stdout.splitlines() if "test_training_reaches" in line]
    assert len(set(trials)) == len(trials)


def hub_of(endpoint: str) -> dict[str, str]:
    """Return the settings for the stand-in hub, which implements plain uploads but not the chunk store (Xet)."""
    return {"HF_ENDPOINT": endpoint, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}


def test_a_trained_model_is_published_with_push_to(spec: Path) -> None:
    with serving() as hub:
        session = run(spec, "--push-to", "me/tiny", **hub_of(hub.endpoint))
    assert session.code == 0, session.text
    assert set(hub.repos["me/tiny"]) >= {"README.md", "config.json", "model.safetensors"}
    card = hub.repos["me/tiny"]["README.md"].decode()
    assert "the embedded data" in card
    assert "accuracy" in card
    assert str(spec.parent) not in card


def test_a_failed_publication_does_not_lose_the_record(spec: Path) -> None:
    with serving() as hub:
        hub.refuse["POST /api/repos/create"] = 403
        session = run(spec, "--push-to", "me/tiny", **hub_of(hub.endpoint))
    assert session.code == 1, session.text
    assert "me/tiny was not published: " in session.text
    assert len(list(session.results.glob("*/*.json"))) == 1


def test_push_to_refuses_several_models(spec: Path) -> None:
    session = run(spec, "--push-to", "me/tiny", "--seeds", "1,2")
    assert session.code == pytest.ExitCode.USAGE_ERROR, session.text
    assert "--push-to me/tiny: a repository holds one model, but this session would train 2" in session.text


def test_a_run_resumes_from_its_checkpoint(spec: Path) -> None:
    """A second session with --resume has nothing left to train and ends with the same results."""
    saved = spec.parent / "saved"
    first = run(spec, "--save", str(saved))
    assert first.code == 0, first.text
    (before,) = read_records(first.results)
    again = run(spec, "--save", str(saved))
    assert again.code == 1, "checkpoints are not overwritten"
    assert "exists already" in again.text
    resumed = run(spec, "--save", str(saved), "--resume")
    assert resumed.code == 0, resumed.text
    (after,) = read_records(resumed.results)
    assert before.quality == after.quality
    assert before.trajectory == after.trajectory
