"""Records: whole on disk or not there, valid JSON whatever happened to the run, and read as data within bounds."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.samples import launch, record, sample_spec, scores, training_run
from touchstone import files as stored
from touchstone.engines.training import Evaluation, Point
from touchstone.records import record as module
from touchstone.records.record import RecordError, json_schema, read_record, read_records, suite_version, write_record
from touchstone.specs.spec import Spec
from touchstone.specs.verdict import judge

SCHEMA = Path(module.__file__).with_name("record.schema.json")
RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return sample_spec(tmp_path)


def test_what_is_written_is_read(spec: Spec, tmp_path: Path) -> None:
    written = record(spec, verdicts=(judge([0.9], expectation=None, metric="f1"),))

    path = write_record(written, tmp_path / "results")

    assert tmp_path / "results" / "xeon-2c-24g-012345" / "ner.embedded.loop.fp32.seed0.json" == path
    assert read_record(path) == written
    assert [written] == read_records(tmp_path / "results") == read_records(path)


def test_a_record_says_what_the_run_did(spec: Spec) -> None:
    made = record(spec)

    assert made.seconds == 60.0
    assert [(score.name, score.value) for score in made.quality] == [("f1", 0.9), ("loss", 0.2)]
    assert made.before_training[0].value == 0.05
    assert made.spec.hash == spec.hash
    assert made.tokens_per_second == 100.0  # real tokens, not padded ones
    assert made.efficiency.flops == 1e11
    assert made.fraction_of_floor == pytest.approx(0.06)  # 0.6 s of 10 s


def test_a_run_without_a_score_before_training_claims_none(spec: Spec) -> None:
    run = training_run()
    run.evaluations.pop(0)

    assert record(spec, run=run).before_training == ()


def test_a_run_that_was_never_evaluated_is_no_record(spec: Spec) -> None:
    run = training_run()
    run.evaluations.clear()

    with pytest.raises(RecordError, match="never evaluated"):
        record(spec, run=run)


def test_a_run_that_diverged_survives_in_valid_json(spec: Spec, tmp_path: Path) -> None:
    run = training_run()
    run.trajectory.append(Point(6, 24, 300, 12.0, math.nan, 0.0))
    run.evaluations.append(Evaluation(2, 6, scores(math.inf), 0.1))
    diverged = record(spec, run=run, verdicts=(judge([-math.inf], expectation=None, metric="f1"),))

    path = write_record(diverged, tmp_path)
    found = read_record(path)

    json.loads(path.read_text(), parse_constant=pytest.fail)  # NaN and Infinity are not JSON
    assert found.quality[0].value == math.inf
    assert math.isnan(found.trajectory.points[-1].loss)
    assert found.verdicts[0].value == -math.inf
    jsonschema.validate(json.loads(path.read_text()), json.loads(SCHEMA.read_text()))


def test_the_json_schema_in_the_repository_is_current() -> None:
    assert json_schema() == SCHEMA.read_text(), (
        "run: python -m touchstone.records.record > touchstone/records/record.schema.json"
    )


def test_records_are_valid_by_the_schema_and_others_are_not(spec: Spec) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    plain = json.loads(record(spec).model_dump_json())

    jsonschema.validate(plain, schema)
    for key in plain.keys() - {"launch"}:  # which a run of one process has not, nor a record from before there was one
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({name: value for name, value in plain.items() if name != key}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain | {"extra": 1}, schema)


def without_floor(data: dict[str, Any]) -> None:
    """As records were before floors: 6 N T, and the data sheet's peak or none."""
    data["efficiency"] = {
        "formula": "6 N T: N all parameters, T tokens gone through, padding among them",
        "flops": 7.2e7,
        "peak_flops_per_second": None,
        "peak_source": None,
        "utilisation": None,
    }


def test_a_record_from_before_floors_is_read_and_has_none(spec: Spec, tmp_path: Path) -> None:
    path = edited(write_record(record(spec), tmp_path), without_floor)
    found = read_record(path)

    assert (found.fraction_of_floor, found.efficiency.memory, found.efficiency.reason) == (None, None, None)
    assert found.efficiency.flops == 7.2e7
    jsonschema.validate(json.loads(path.read_text()), json.loads(SCHEMA.read_text()))


def test_every_committed_record_is_read_and_valid_by_the_schema() -> None:
    schema = json.loads(SCHEMA.read_text())
    paths = sorted(RESULTS.rglob("*.seed*.json"))

    assert paths
    assert len(paths) == len(read_records(RESULTS))
    for path in paths:
        jsonschema.validate(json.loads(path.read_text()), schema)


def test_a_long_trajectory_is_thinned_and_says_so(spec: Spec) -> None:
    long = record(spec, run=training_run(steps=1001)).trajectory
    short = record(spec, run=training_run(steps=200)).trajectory

    assert (len(long.points), long.steps, long.thinned) == (200, 1001, True)
    assert (long.points[0].step, long.points[-1].step) == (1, 1001)
    gaps = {b.step - a.step for a, b in zip(long.points, long.points[1:], strict=False)}
    assert gaps == {5, 6}  # 1000 steps in 199 even gaps
    assert (len(short.points), short.thinned) == (200, False)


def test_step_times_leave_the_first_out_of_the_summary_and_keep_all(spec: Spec) -> None:
    run = training_run()
    run.step_seconds = [9.0, 1.0, 2.0, 3.0]

    steps = record(spec, run=run).steps

    assert (steps.n, steps.first, steps.mean, steps.median, steps.sd) == (4, 9.0, 2.0, 2.0, 1.0)
    assert steps.seconds == (9.0, 1.0, 2.0, 3.0)


def test_a_resumed_run_without_steps_has_no_summary(spec: Spec) -> None:
    run = training_run()
    run.step_seconds, run.trajectory = [], []

    assert record(spec, run=run).steps.mean is None


def break_write(monkeypatch: pytest.MonkeyPatch, *, at: str) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full) if at == "fsync" else monkeypatch.setattr(Path, "replace", full)


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_full_disk_is_told_and_leaves_the_old_record_and_no_litter(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    old = record(spec)
    path = write_record(old, tmp_path / "results")
    break_write(monkeypatch, at=at)

    with pytest.raises(RecordError, match=r"seed0\.json: cannot be written \(No space left on device\)"):
        write_record(record(spec, run=training_run(f1=0.1)), tmp_path / "results")

    assert read_record(path) == old
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_is_a_file_is_told(spec: Spec, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")

    with pytest.raises(RecordError, match="cannot be written"):
        write_record(record(spec), tmp_path / "results")


def edited(path: Path, edit: Any) -> Path:
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    return path


WRONG = {
    "an unknown key": (lambda d: d.update(extra=1), "extra is not a known key"),
    "a misspelt key": (lambda d: d.update(sed=1), "sed is not a known key: did you mean seed?"),
    "a missing key": (lambda d: d.pop("seed"), "seed is missing: add it"),
    "a missing inner key": (lambda d: d["tokens"].pop("real"), "tokens.real is missing: add it"),
    "text for a number": (lambda d: d["tokens"].update(real="5"), "tokens.real = '5'"),
    "a negative count": (lambda d: d["tokens"].update(real=-5), "tokens.real = -5"),
    "a number beyond 64 bits": (lambda d: d["tokens"].update(real=2**70), "tokens.real = "),
    "NaN seconds": (lambda d: d["phase_seconds"].update(train="NaN"), "phase_seconds.train = 'NaN'"),
    "a newer version": (lambda d: d.update(schema_version=2), "schema_version = 2: this version of the suite reads 1"),
    "no version": (lambda d: d.pop("schema_version"), "schema_version = None: this version"),
    "a changed spec": (lambda d: d["spec"]["resolved"]["recipe"].update(epochs=9), "was changed after the run"),
    "half a spec": (lambda d: d["spec"]["resolved"].pop("recipe"), "the spec lacks recipe"),
    "a path for a name": (lambda d: d.update(engine="../../x"), "engine = '../../x'"),
    "a path for a machine": (lambda d: d["hardware"].update(name="../x"), "hardware.name = '../x'"),
    "terminal codes": (lambda d: d["hardware"].update(cpu_model="\x1b[2J"), "hardware.cpu_model = "),
    "a long line": (lambda d: d["hardware"].update(cpu_model="x" * 9999), "hardware.cpu_model = "),
    "utilisation of an unknown peak": (
        lambda d: d["efficiency"].update(peak_flops_per_second=None, peak_source=None, floor=None),
        "without flops or a peak: it must be null",
    ),
    "a floor on a rate that nobody measured": (lambda d: d["efficiency"].update(memory=None), "it must be null"),
    "a peak without its source": (lambda d: d["efficiency"].update(peak_source=None), "a peak and its source"),
    "a floor that is not its parts": (lambda d: d["efficiency"]["floor"].update(seconds=5.0), "and its parts 0.6"),
    "an unknown key of the floor": (lambda d: d["efficiency"]["floor"].update(lowest=1), "efficiency.floor.lowest"),
    "a negative rate": (lambda d: d["efficiency"]["memory"].update(per_second=-1.0), "efficiency.memory.per_second"),
    "a time without a zone": (lambda d: d.update(started="2026-01-01T00:00:00"), "started = "),
    "a list": (lambda d: d["trajectory"].update(points=[{}]), "trajectory.points[0].step is missing"),
}


@pytest.mark.parametrize(("edit", "message"), WRONG.values(), ids=WRONG)
def test_a_strangers_record_is_refused_with_file_and_key(spec: Spec, tmp_path: Path, edit: Any, message: str) -> None:
    path = edited(write_record(record(spec), tmp_path), edit)

    with pytest.raises(RecordError) as caught:
        read_record(path)

    assert message in str(caught.value)
    assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not the JSON of a record"),
        ("[]", "schema_version = None"),
        ('{"schema_version": 1, "schema_version": 1}', "occurs twice"),
        ('{"schema_version": 1, "seed": NaN}', 'as the string "NaN"'),
        ("[" * 200_000, "is not the JSON of a record"),
        ("\udcff", "is not the JSON of a record"),
    ],
    ids=["empty", "no object", "a key twice", "NaN", "nested too deep", "no UTF-8"],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.seed0.json"
    path.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(RecordError, match=message):
        read_record(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MAX_BYTES", 100)
    path = tmp_path / "x.seed0.json"
    path.write_text(" " * 101)

    with pytest.raises(RecordError, match="is larger than"):
        read_record(path)


def test_places_without_records_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no record"):
        read_records(tmp_path)
    with pytest.raises(RecordError, match="no such file or folder"):
        read_records(tmp_path / "none")


def test_a_record_says_how_many_processes_trained(spec: Spec, tmp_path: Path) -> None:
    alone, two = record(spec), record(spec, launch=launch(2))

    assert (alone.processes, two.processes) == (1, 2)
    assert alone.file_name.replace(".seed", ".2-processes.seed") == two.file_name, "neither may overwrite the other"
    assert read_record(write_record(two, tmp_path)) == two


def test_the_suites_commit_is_that_of_its_own_repository(tmp_path: Path) -> None:
    here = suite_version()

    assert here.commit is None or len(here.commit) == 40
    assert (suite_version(tmp_path).commit, suite_version(tmp_path).dirty) == (None, None)
