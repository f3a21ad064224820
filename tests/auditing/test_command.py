"""`touchstone audit`: its options, what it prints and writes, and its exit codes."""

from __future__ import annotations

import argparse
import os
import pty
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.auditing import reports
from tests.support.environment import environment
from tests.support.forked import run_forked
from tests.zoo.fault import CLEAN, all_faults
from touchstone.__main__ import main
from touchstone.auditing.finding import Report
from touchstone.auditing.probe import load_probes
from touchstone.auditing.reporting.stored import read_report
from touchstone.cli import audit as cli
from touchstone.cli.audit import StatusLine

PROBE = "special-tokens-unlabelled"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(zoo_assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of assets with a right script, a faulty one, and some that cannot be judged."""
    folder = tmp_path_factory.mktemp("command") / "run"
    shutil.copytree(zoo_assets, folder)
    clean = (CLEAN / "ner_trainer.py").read_text(encoding="utf-8")
    fault = next(fault for fault in all_faults() if fault.id == "ner-labels-on-special-tokens")
    arguments = "import sys\nopen('arguments.txt', 'w').write(' '.join(sys.argv[1:]))\n"
    (folder / "train.py").write_text(arguments + clean)
    (folder / "faulty.py").write_text(fault.text())
    (folder / "moves.py").write_text("import os; os.makedirs('sub', exist_ok=True); os.chdir('sub')\n" + "x = 1\n")
    (folder / "never.py").write_text("print('hello')\n")
    (folder / "fails.py").write_text("x = 1\nraise ValueError('no data')\n")
    (folder / "parses.py").write_text("import argparse\nargparse.ArgumentParser().parse_args()\n")
    (folder / "interrupted.py").write_text("raise KeyboardInterrupt\n")
    return folder


def audit(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in an interpreter of its own. It takes seconds to import torch if the script trains."""
    return subprocess.run(
        [sys.executable, "-m", "touchstone", "audit", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        timeout=240,
    )


def test_a_faulty_script_is_reported_in_text_json_and_html(folder: Path) -> None:
    words = ("--probe", PROBE, "--json", "out/a.json", "--html", "out/a.html", "faulty.py", "--own", "--json", "x")
    run = run_forked(main, ("audit", *words), folder=folder)

    assert run.returncode == 1, run.stderr
    assert run.stdout.splitlines()[:2] == ["faulty.py (token-classification)", "1 fault"]
    assert f"touchstone audit --probe {PROBE} faulty.py --own --json x" in run.stdout
    assert "\x1b" not in run.stdout
    readme = textwrap.dedent((ROOT / "README.md").read_text(encoding="utf-8"))
    shown = re.search(r"^    FAIL .*?(?=^    \.\.\.$)", readme, flags=re.DOTALL | re.MULTILINE)
    assert shown is not None
    assert textwrap.dedent(shown[0]).rstrip().replace("train.py", "faulty.py --own --json x") in run.stdout
    assert "Loading weights" not in run.stdout, "the script's own output goes to the standard error"
    report = read_report(folder / "out" / "a.json")
    assert [finding.outcome for finding in report] == ["fail"]
    page = (folder / "out" / "a.html").read_text(encoding="utf-8")
    assert "special tokens have labels" in page
    assert "##" in page, "the batch is shown"


def test_options_behind_the_script_are_the_scripts_own(folder: Path) -> None:
    words = ("--probe", PROBE, "--budget", "fast", "train.py", "--budget", "x", "--list", "--", "-h")
    run = run_forked(main, ("audit", *words), folder=folder)

    assert run.returncode == 0, run.stderr
    assert (folder / "arguments.txt").read_text() == "--budget x --list -- -h"
    assert run.stdout.endswith("ran 1 of 1 probes\n")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("never.py", "could not judge: never.py: it ended without training"),
        ("fails.py", "could not judge: fails.py:2: ValueError: no data"),
    ],
)
def test_a_script_that_cannot_be_judged_gives_two(script: str, message: str, folder: Path) -> None:
    run = audit(script, folder=folder)

    assert run.returncode == 2
    assert message in run.stderr
    assert run.stdout == ""


def test_an_option_that_went_to_the_script_is_pointed_out(folder: Path) -> None:
    run = audit("parses.py", "--html", "x.html", folder=folder)

    assert run.returncode == 2
    assert "--html went to the script: options of touchstone stand before it" in run.stderr


def test_an_interrupted_script_gives_130(folder: Path) -> None:
    assert audit("interrupted.py", folder=folder).returncode == 130


def test_a_terminal_has_colour_and_shows_which_probe_runs(folder: Path) -> None:
    text = on_terminal("--probe", PROBE, "faulty.py", folder=folder)

    assert "\x1b[1;31m" in text
    assert f"[1/1] {load_probes()[PROBE].says}" in text
    assert text.rindex("\x1b[K") < text.index("FAIL"), "the line of progress is gone when the report comes"


def on_terminal(*words: str, folder: Path, **variables: str) -> str:
    """Run the command on a pseudo-terminal and return what it shows."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "touchstone", "audit", *words],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100"} | variables,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux: the last writer has closed the terminal
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait(timeout=60) == 1
    return shown.decode()


# ---- in this process, with a report that is there already


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Let every script have the report of `reports.faulty`, and keep the options that the audit was given."""
    given: dict[str, Any] = {}

    def audit_script(script: Path, arguments: list[str], **options: Any) -> Report:
        given.update(options, script=script, arguments=arguments)
        return reports.faulty()

    monkeypatch.setattr("touchstone.auditing.script.audit_script", audit_script)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    return given


def test_ignored_faults_are_shown_with_their_reasons_and_do_not_fail(
    judged: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(load_probes(), "gradient", load_probes()[PROBE])

    code = main(["audit", "--ignore", f"{PROBE}=they are words = here", "--ignore", "gradient=meant", "train.py"])

    assert code == 0
    out = capsys.readouterr().out
    assert "no fault, 1 warning, 12 passed, 3 ignored" in out
    assert "because: they are words = here" in out


def test_a_report_that_cannot_be_written_is_still_printed(
    judged: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["audit", "--json", "train.py/a.json", "--html", "out/b.html", "train.py"])

    out, err = capsys.readouterr()
    assert code == 2
    assert "2 faults" in out
    assert len(err.splitlines()) == 1
    assert err.startswith("error: --json ")
    assert (tmp_path / "out" / "b.html").is_file()


def test_a_script_that_changes_the_folder_does_not_move_the_files(
    judged: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def audit_script(*_: Any, **__: Any) -> Report:
        (tmp_path / "elsewhere").mkdir()
        os.chdir(tmp_path / "elsewhere")
        return reports.faulty()

    monkeypatch.setattr("touchstone.auditing.script.audit_script", audit_script)

    assert main(["audit", "--json", "a.json", "train.py"]) == 1
    assert (tmp_path / "a.json").is_file()


def test_options_reach_the_audit(judged: dict[str, Any]) -> None:
    words = ["--budget", "fast", "--seconds", "2.5", "--task", "summarization", "--probe", PROBE, "train.py", "-x", "y"]

    main(["audit", *words])

    del judged["progress"]
    assert judged == {
        "script": Path("train.py"),
        "arguments": ["-x", "y"],
        "budget": "fast",
        "seconds": 2.5,
        "task": "summarization",
        "probes": [PROBE],
    }


# ---- wrong options, in this process


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no script is given"),
        (["."], "is a folder: give the training script in it, such as faulty.py"),
        (["train.ipynb"], "jupyter nbconvert --to script train.ipynb"),
        (["trian.py"], "there is no such file: did you mean train.py?"),
        (["torchrun", "train.py"], "is a command, not a script"),
        (["pkg.run"], "is the name of a module: give its file, pkg/run.py"),
        (["/dev/null"], "is not a regular file"),
        (["--probe", "special-token-unlabelled", "train.py"], f"did you mean {PROBE}?"),
        (["--ignore", PROBE, "train.py"], "give a reason"),
        (["--ignore", f"{PROBE}= ", "train.py"], "give a reason"),
        (["--ignore", "nothing=x", "train.py"], "nothing is not a probe"),
        (["--task", "token-clasification", "train.py"], "did you mean token-classification?"),
    ],
)
def test_a_wrong_option_is_one_error_before_the_script_runs(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pkg").mkdir()
    for name in ("faulty.py", "train.py", "pkg/run.py"):
        (tmp_path / name).write_text("raise SystemExit('the script was run')")

    assert main(["audit", *words]) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "nan"])
def test_a_time_limit_must_be_a_positive_number(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["audit", "--seconds", seconds, "train.py"])

    assert end.value.code == 2
    assert "is not a number of seconds above 0" in capsys.readouterr().err


def test_list_shows_every_probe_without_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--list"]) == 0

    text = capsys.readouterr().out
    for probe in load_probes().values():
        assert probe.id in text
        assert probe.group in text


def test_list_imports_no_torch() -> None:
    program = (
        "import sys; from touchstone.__main__ import main; main(['audit', '--list']); print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)

    assert run.stdout.splitlines()[-1] == "False"


def test_progress_is_silent_unless_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with StatusLine() as status:
        status.show(load_probes()[PROBE], 0, 1)

    assert capsys.readouterr().err == ""


def test_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["audit", "--help"])

    text = capsys.readouterr().out
    assert "examples:" in text
    assert "exit codes:" in text
    assert "touchstone audit [OPTIONS] SCRIPT [ARGUMENTS]" in text


def test_reports_are_written_even_if_the_reader_of_the_terminal_output_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `touchstone audit --html audit.html train.py | head`."""

    def leave(report: Report, *, verbose: bool) -> None:
        raise BrokenPipeError

    script, page = tmp_path / "train.py", tmp_path / "audit.html"
    script.write_text("")
    monkeypatch.setattr("touchstone.auditing.script.audit_script", lambda *arguments, **options: reports.faulty())
    monkeypatch.setattr("touchstone.cli.audit._print", leave)
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)

    with pytest.raises(BrokenPipeError):
        cli.run(parser.parse_args(["--html", str(page), str(script)]))
    assert "accumulation (8) is not divided" in page.read_text(encoding="utf-8")
