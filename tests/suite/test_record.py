"""Records: written whole or not at all, valid JSON for any run, and read as data within bounds."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.environment import environment
from tests.support.samples import launch, record, sample_spec, scores, training_run
from touchstone import files
from touchstone.engines.training import Evaluation, Point
from touchstone.records import record as module
from touchstone.records.machine import suite_version
from touchstone.records.record import RecordError, json_schema, read_record, read_records, write_record
from touchstone.specs.spec import Spec
from touchstone.specs.verdict import judge

SCHEMA = Path(module.__file__).with_name("record.schema.json")
RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return sample_spec(tmp_path)


def test_read_record_returns_what_was_written(spec: Spec, tmp_path: Path) -> None:
    written = record(spec, verdicts=(judge([0.9], expectation=None, metric="f1"),))

    path = write_record(written, tmp_path / "results")

    assert tmp_path / "results" / "xeon-2c-24g-012345" / "ner.embedded.loop.fp32.seed0.json" == path
    assert read_record(path) == written
    assert [written] == read_records(tmp_path / "results") == read_records(path)


def test_a_record_has_the_figures_of_the_run(spec: Spec) -> None:
    made = record(spec)

    assert made.seconds == 60.0
    assert [(score.name, score.value) for score in made.quality] == [("f1", 0.9), ("loss", 0.2)]
    assert made.before_training[0].value == 0.05
    assert made.spec.hash == spec.hash
    assert made.tokens_per_second == 100.0  # real tokens, not padded ones
    assert made.efficiency.flops == 1e11
    assert made.fraction_of_floor == pytest.approx(0.06)  # 0.6 s of 10 s


def test_a_record_has_no_scores_before_training_without_such_an_evaluation(spec: Spec) -> None:
    run = training_run()
    run.evaluations.pop(0)

    assert record(spec, run=run).before_training == ()


def test_record_of_refuses_a_run_that_was_never_evaluated(spec: Spec) -> None:
    run = training_run()
    run.evaluations.clear()

    with pytest.raises(RecordError, match="never evaluated"):
        record(spec, run=run)


def test_a_diverged_run_is_written_as_valid_json(spec: Spec, tmp_path: Path) -> None:
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


def test_the_json_schema_accepts_records_and_refuses_others(spec: Spec) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    plain = json.loads(record(spec).model_dump_json())

    jsonschema.validate(plain, schema)
    for key in plain.keys() - {"launch"}:  # optional: missing in records from before it existed
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({name: value for name, value in plain.items() if name != key}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain | {"extra": 1}, schema)


def without_floor(data: dict[str, Any]) -> None:
    """Make `data` a record from before floors existed, with the estimate 6 N T and no peak."""
    data["efficiency"] = {
        "formula": "6 N T: N all parameters, T tokens gone through, padding among them",
        "flops": 7.2e7,
        "peak_flops_per_second": None,
        "peak_source": None,
        "utilisation": None,
    }


def test_read_record_accepts_a_record_from_before_floors_existed(spec: Spec, tmp_path: Path) -> None:
    path = edited(write_record(record(spec), tmp_path), without_floor)
    found = read_record(path)

    assert (found.fraction_of_floor, found.efficiency.memory, found.efficiency.reason) == (None, None, None)
    assert found.efficiency.flops == 7.2e7
    jsonschema.validate(json.loads(path.read_text()), json.loads(SCHEMA.read_text()))


def test_reading_a_record_needs_neither_torch_nor_the_extra_suite(spec: Spec, tmp_path: Path) -> None:
    path = write_record(record(spec), tmp_path)
    program = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'datasets', 'psutil', 'pynvml', 'scipy', 'pytest', 'hypothesis'):\n"
        "    sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "import touchstone\n"
        "print(touchstone.read_record(Path(sys.argv[1])).seed)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], env=environment(), capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("0\n", "")


def test_every_committed_record_can_be_read_and_fits_the_schema() -> None:
    schema = json.loads(SCHEMA.read_text())
    paths = sorted(RESULTS.rglob("*.seed*.json"))

    assert paths
    assert len(paths) == len(read_records(RESULTS))
    for path in paths:
        jsonschema.validate(json.loads(path.read_text()), schema)


def test_a_long_trajectory_is_thinned_and_marked(spec: Spec) -> None:
    long = record(spec, run=training_run(steps=1001)).trajectory
    short = record(spec, run=training_run(steps=200)).trajectory

    assert (len(long.points), long.steps, long.thinned) == (200, 1001, True)
    assert (long.points[0].step, long.points[-1].step) == (1, 1001)
    gaps = {b.step - a.step for a, b in zip(long.points, long.points[1:], strict=False)}
    assert gaps == {5, 6}  # 1000 steps in 199 even gaps
    assert (len(short.points), short.thinned) == (200, False)


def test_step_seconds_keep_all_steps_and_summarize_all_but_the_first(spec: Spec) -> None:
    run = training_run()
    run.step_seconds = [9.0, 1.0, 2.0, 3.0]

    steps = record(spec, run=run).steps

    assert (steps.n, steps.first, steps.mean, steps.median, steps.sd) == (4, 9.0, 2.0, 2.0, 1.0)
    assert steps.seconds == (9.0, 1.0, 2.0, 3.0)


def test_step_seconds_have_no_summary_without_steps(spec: Spec) -> None:
    run = training_run()
    run.step_seconds, run.trajectory = [], []

    assert record(spec, run=run).steps.mean is None


def break_write(monkeypatch: pytest.MonkeyPatch, *, at: str) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full) if at == "fsync" else monkeypatch.setattr(Path, "replace", full)


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_write_record_reports_a_full_disk_and_keeps_the_old_record(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    old = record(spec)
    path = write_record(old, tmp_path / "results")
    break_write(monkeypatch, at=at)

    with pytest.raises(RecordError, match=r"seed0\.json: cannot be written \(No space left on device\)"):
        write_record(record(spec, run=training_run(f1=0.1)), tmp_path / "results")

    assert read_record(path) == old
    assert list(path.parent.iterdir()) == [path]


def test_write_record_reports_a_file_in_place_of_the_folder(spec: Spec, tmp_path: Path) -> None:
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
    "a floor without the rate of memory": (lambda d: d["efficiency"].update(memory=None), "it must be null"),
    "a peak without its source": (
        lambda d: d["efficiency"].update(peak_source=None),
        "must both be given",
    ),
    "a floor that is not the sum of its parts": (
        lambda d: d["efficiency"]["floor"].update(seconds=5.0),
        "the parts of the floor add up to 0.6",
    ),
    "an unknown key of the floor": (lambda d: d["efficiency"]["floor"].update(lowest=1), "efficiency.floor.lowest"),
    "a negative rate": (lambda d: d["efficiency"]["memory"].update(per_second=-1.0), "efficiency.memory.per_second"),
    "a time without a zone": (lambda d: d.update(started="2026-01-01T00:00:00"), "started = "),
    "a list": (lambda d: d["trajectory"].update(points=[{}]), "trajectory.points[0].step is missing"),
}


@pytest.mark.parametrize(("edit", "message"), WRONG.values(), ids=WRONG)
def test_read_record_refuses_a_wrong_record(spec: Spec, tmp_path: Path, edit: Any, message: str) -> None:
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
        ('{"schema_version": 1, "seed": NaN}', 'has the string "NaN"'),
        ("[" * 200_000, "is not the JSON of a record"),
        ("\udcff", "is not the JSON of a record"),
    ],
    ids=["empty", "not an object", "a key twice", "NaN", "nested too deep", "not UTF-8"],
)
def test_read_record_refuses_files_that_are_not_records(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.seed0.json"
    path.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(RecordError, match=message):
        read_record(path)


def test_read_record_refuses_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 100)
    path = tmp_path / "x.seed0.json"
    path.write_text(" " * 101)

    with pytest.raises(RecordError, match="is larger than"):
        read_record(path)


def test_read_records_reports_folders_without_records(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="contains no record"):
        read_records(tmp_path)
    with pytest.raises(RecordError, match="no such file or folder"):
        read_records(tmp_path / "none")


def test_a_record_has_the_number_of_processes_in_its_name(spec: Spec, tmp_path: Path) -> None:
    alone, two = record(spec), record(spec, launch=launch(2))

    assert (alone.processes, two.processes) == (1, 2)
    assert alone.file_name.replace(".seed", ".2-processes.seed") == two.file_name, "one would overwrite the other"
    assert read_record(write_record(two, tmp_path)) == two


def test_suite_version_reads_the_commit_of_its_own_repository(tmp_path: Path) -> None:
    here = suite_version()

    assert here.commit is None or len(here.commit) == 40
    assert (suite_version(tmp_path).commit, suite_version(tmp_path).dirty) == (None, None)
