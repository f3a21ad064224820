"""What a report says in the terminal, in JSON and by its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator
from rich.cells import cell_len

from tests.auditing import reports
from touchstone.auditing.finding import AuditFailed, Example, Finding, Report
from touchstone.auditing.reporting.stored import json_schema, read_report
from touchstone.auditing.reporting.table import as_text
from touchstone.files import RecordError

SCHEMA = Path(__file__).parents[2] / "touchstone" / "auditing" / "reporting" / "report.schema.json"


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("verbose", [False, True])
def test_a_report_fits_the_terminal(width: int, verbose: bool) -> None:
    text = as_text(reports.faulty(), width=width, verbose=verbose)

    assert max(cell_len(line) for line in text.splitlines()) <= width


def test_a_report_opens_with_its_verdict_and_shows_the_faults_first() -> None:
    lines = as_text(reports.faulty(), width=120).splitlines()

    assert lines[0] == "train.py (token-classification)"
    assert lines[1] == "2 faults, 1 warning, 12 passed, 1 ignored, 4 not checked"
    heads = [line.split()[0] for line in lines if line[:1].isalpha()]
    assert heads == ["train.py", "FAIL", "FAIL", "warn", "ignored", "passed", "not", "ran"]
    assert lines[-1] == "ran 16 of 20 probes"


def test_a_report_shows_message_cause_figures_rows_and_how_to_see_it_again() -> None:
    text = as_text(reports.faulty(), width=120)

    for expected in (
        "FAIL  32 rows have labels at special tokens  [special-tokens-unlabelled]",
        "give special tokens the label -100",
        "measured 2, expected 0",
        "row 3 of the first training batch, 10 of 15 rows",
        "touchstone audit --probe special-tokens-unlabelled train.py",
        "because: the names are set later",
    ):
        assert expected in text


def test_marked_rows_of_an_example_are_marked_in_the_terminal() -> None:
    lines = as_text(reports.faulty(), width=120).splitlines()
    tokens = next(line for line in lines if line.strip().startswith("token "))
    marks = next(line for line in lines if "^" in line)

    assert marks.index("^") == tokens.index("[CLS]")
    assert marks.rindex("^") < tokens.index("[SEP]") + len("[SEP]")


def test_probes_that_pass_are_folded_into_one_line_per_group() -> None:
    lines = as_text(reports.faulty(), width=80).splitlines()
    at = lines.index("passed")

    assert lines[at + 1].startswith("  other 12  probe-0, probe-1")
    assert lines[at + 1].endswith("…")


def test_probes_that_were_not_checked_are_folded_by_reason() -> None:
    text = as_text(reports.faulty(), width=120)

    assert "needs --budget deep (deep-0, deep-1, deep-2)" in text


def test_a_verbose_report_lists_every_probe() -> None:
    report = reports.faulty()
    text = as_text(report, width=120, verbose=True)

    assert all(finding.probe in text for finding in report)


def test_text_of_the_data_cannot_rewrite_the_terminal() -> None:
    finding = Finding("p", "fail", "a\x1b[2Jb", "c\rd\u202ee", example=Example(("\x1b]0;x\x07",), [("\x1b[31m",)]))

    text = as_text(Report("\x1bs", "t\n", [finding]))

    assert not set("\x1b\r\x07\u202e") & set(text)


def test_a_report_prints_as_plain_text() -> None:
    assert str(reports.faulty()).startswith("train.py (token-classification)")
    assert "\x1b" not in str(reports.faulty())


@pytest.mark.parametrize(
    ("outcomes", "code", "verdict"),
    [
        ([], 2, "nothing could be judged: 0 not checked"),
        (["not-checked"], 2, "nothing could be judged: 1 not checked"),
        (["pass", "not-checked"], 0, "no fault, 1 passed, 1 not checked"),
        (["pass", "warn"], 0, "no fault, 1 warning, 1 passed"),
        (["pass", "fail", "warn", "warn"], 1, "1 fault, 2 warnings, 1 passed"),
    ],
)
def test_the_exit_code_and_the_verdict_follow_from_the_outcomes(outcomes: list[str], code: int, verdict: str) -> None:
    report = Report("s", "t", [Finding(f"p{i}", each, "m") for i, each in enumerate(outcomes)])  # type: ignore[arg-type]

    assert report.exit_code == code
    assert report.verdict == verdict


def test_an_ignored_fault_is_shown_and_does_not_count() -> None:
    report = Report("s", "t", [Finding("a", "fail", "wrong", "because"), Finding("b", "pass", "right")])

    ignoring = report.ignoring({"a": "it is meant", "b": "not needed"})

    assert ignoring.exit_code == 0
    assert ignoring.failures() == []
    ignoring.raise_if_failed()
    assert "because: it is meant" in as_text(ignoring)
    assert [finding.ignored for finding in ignoring] == ["it is meant", ""]


def test_ignoring_without_a_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="without a reason"):
        reports.faulty().ignoring({"gradient": " "})


def test_raise_if_failed_names_the_probe_the_message_and_the_cause() -> None:
    with pytest.raises(AuditFailed, match=r"special-tokens-unlabelled: 32 rows .*\. the labels"):
        reports.faulty().raise_if_failed()


# ---- JSON


def test_a_report_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    report = reports.faulty()
    report.save(tmp_path / "report.json")

    again = read_report(tmp_path / "report.json")

    assert again.to_dict() == report.to_dict()
    assert as_text(again) == as_text(report)


def test_the_json_has_the_documented_keys_and_follows_the_schema() -> None:
    data = reports.faulty().to_dict()

    assert list(data) == ["schema", "subject", "task", "ran", "of", "findings"]
    assert list(data["findings"][0]) == [
        "probe",
        "outcome",
        "message",
        "cause",
        "measured",
        "expected",
        "example",
        "repro",
    ]
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(data)


def test_the_committed_schema_is_the_one_of_the_code() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == json_schema(), (
        "run: python -m touchstone.auditing.reporting.stored > touchstone/auditing/reporting/report.schema.json"
    )


def test_any_value_a_probe_may_measure_becomes_valid_json(tmp_path: Path) -> None:
    values = {
        "nan": float("nan"),
        "inf": [float("inf"), -float("inf")],
        "tensor": torch.ones(2, requires_grad=True) * torch.tensor(float("nan")),
        "array": torch.ones(2, 2).numpy(),
        "set": {2, 1},
        "object": object,
        "surrogate": "\ud800",
        1: (None, True),
    }
    example = Example(("a",), [(float("nan"),), ([1, 2],), (torch.tensor(3),)], marked=range(2))
    Report("s", "t", [Finding("p", "fail", "m", "c", values, values, example)]).save(tmp_path / "r.json")

    text = (tmp_path / "r.json").read_text(encoding="utf-8")
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    assert data["findings"][0]["measured"]["inf"] == ["Infinity", "-Infinity"]
    assert data["findings"][0]["measured"]["tensor"] == ["NaN", "NaN"]
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(data)
    read_report(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not the JSON of a report"),
        ("[]", "schema = None"),
        ('{"schema": "touchstone.audit/9"}', r"touchstone\.audit/9"),
        ('{"schema": "touchstone.audit/1"}', "subject is missing"),
        (
            '{"schema": "touchstone.audit/1", "subject": "s", "task": "t", "ran": 3, "of": 0, "findings": []}',
            "ran 3 of 0, but the findings are 0 of 0",
        ),
    ],
)
def test_a_file_that_is_no_report_is_refused_with_its_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)

    with pytest.raises(RecordError, match=message) as error:
        read_report(path)

    assert str(path) in str(error.value)


def test_a_report_that_cannot_be_written_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)

    with pytest.raises(RecordError, match="No space left on device"):
        reports.faulty().save(path)

    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["r.json"]
