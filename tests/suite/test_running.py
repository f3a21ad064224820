"""Isolated jobs: the parent learns the cause of every failure, and no process is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Stopping, assert_gone
from touchstone.runs import isolation
from touchstone.runs.isolation import Outcome, run_isolated

ROOT = Path(__file__).parents[2]


def run(job: str, log: Path, **keywords: Any) -> Outcome:
    return run_isolated(f"tests.support.jobs:{job}", log=log, payload=keywords.pop("payload", {}), **keywords)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "job.log"


def test_the_result_and_every_message_arrive_in_order(log: Path) -> None:
    messages: list[Any] = []
    outcome = run("answer", log, payload={"a": 2, "b": 3}, on_message=messages.append)
    assert outcome.value == {"sum": 5}
    assert outcome.failure is None
    assert messages == [{"step": 1}, {"step": 2}]
    assert outcome.seconds > 0


def test_output_goes_to_the_log_and_nowhere_else(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run("answer", log, payload={"a": 2, "b": 3})
    assert log.read_text() == "some output\noutput of a child\n"
    assert capfd.readouterr() == ("", "")


def test_a_job_starts_with_torch_imported_and_no_device_touched(
    log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run("look_around", log)  # starts the server
    monkeypatch.setenv("TOUCHSTONE_TRIED", "yes")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    seen = run("look_around", log).value
    assert seen is not None
    assert seen["pid"] == seen["group"], "a job must lead its own process group"
    assert seen["torch"]
    assert not seen["cuda"]
    assert not seen["pytest"], "the parent's main program ran again in the child"
    assert seen["variable"] == "yes", "a job gets its parent's environment, not the server's"
    assert seen["python_path"] is None
    assert str(tmp_path) == seen["directory"]
    assert seen["interrupt"]


def test_a_job_starts_in_a_fraction_of_a_second_once_the_server_is_up(log: Path) -> None:
    run("answer", log, payload={"a": 2, "b": 3})
    seconds = min(run("answer", log, payload={"a": 2, "b": 3}).seconds for _ in range(3))
    # 0.05 s here; importing torch and transformers alone takes 3 s and more: 1 s separates the two.
    assert seconds < 1.0


def test_large_messages_and_results_arrive_whole(log: Path) -> None:
    messages: list[Any] = []
    outcome = run("large", log, on_message=messages.append)
    assert outcome.value is not None
    assert len(outcome.value["text"]) == 1_000_000
    assert [len(message["text"]) for message in messages] == [100_000] * 20


def test_an_exception_is_reported_with_its_cause_and_place(log: Path) -> None:
    outcome = run("fail", log)
    assert outcome.value is None
    assert outcome.failure is not None
    assert outcome.failure.kind == "error"
    first, second = outcome.failure.cause.splitlines()
    assert first.startswith("ValueError: the data has no column 'tags' (")
    assert "jobs.py" in first
    assert second.startswith("  caused by KeyError: 'tags'")
    assert "Traceback" in outcome.report()
    assert "step 3" in outcome.report()
    assert "step 2" not in outcome.report(), "only the last state of a progress bar is shown"


def test_a_refused_job_is_reported_with_its_message_alone(log: Path) -> None:
    outcome = run("refuse", log)
    assert outcome.failure is not None
    assert outcome.failure.kind == "refused"
    assert outcome.report() == "data.parquet has no column 'tags': it has words"
    assert "Traceback" in log.read_text(), "the place is in the log"


def test_a_result_that_is_not_plain_data_is_an_error(log: Path) -> None:
    failure = run("return_what_json_cannot_write", log).failure
    assert failure is not None
    assert "not JSON serializable" in failure.cause


def test_a_job_that_cannot_be_imported_is_an_error(log: Path) -> None:
    failure = run("no_such_job", log).failure
    assert failure is not None
    assert "no_such_job" in failure.cause


@pytest.mark.parametrize(("job", "code"), [("leave", 3), ("leave_by_sys_exit", 1)])
def test_an_exit_without_a_result_is_reported_with_its_code(log: Path, job: str, code: int) -> None:
    failure = run(job, log).failure
    assert failure is not None
    assert failure.kind == "exit"
    assert f"exit code {code}" in failure.cause


def test_a_killed_job_is_reported_with_its_peak_memory(log: Path) -> None:
    outcome = run("kill_itself", log)
    assert outcome.failure is not None
    assert outcome.failure.kind == "signal"
    assert "killed (SIGKILL), most likely because memory ran out" in outcome.failure.cause
    assert outcome.peak_bytes > 300 << 20


def test_a_crash_in_native_code_is_reported_with_its_python_stack(log: Path) -> None:
    outcome = run("crash", log)
    assert outcome.failure is not None
    assert "SIGSEGV" in outcome.failure.cause
    assert "in crash" in outcome.report()


def test_a_memory_error_is_reported_by_name(log: Path) -> None:
    failure = run("run_out_of_memory", log).failure
    assert failure is not None
    assert "MemoryError" in failure.cause


def test_a_job_that_hangs_is_killed_with_its_children_and_its_stack_is_shown(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "GRACE_SECONDS", 0.3)
    messages: list[Any] = []
    outcome = run("hang", log, timeout=1.5, on_message=messages.append)
    assert outcome.failure is not None
    assert outcome.failure.kind == "timeout"
    assert "1.5 s" in outcome.failure.cause
    assert "in hang" in outcome.report()
    assert_gone(messages[0]["pids"])


def test_children_that_a_finished_job_left_behind_are_killed(log: Path) -> None:
    outcome = run("leave_a_child_behind", log)
    assert outcome.value is not None
    assert_gone(outcome.value["pids"])


def test_an_interrupt_stops_the_job_and_propagates(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "GRACE_SECONDS", 0.3)
    interrupt = Stopping(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run("hang", log, on_message=interrupt)
    assert len(interrupt.pids) == 2
    assert_gone(interrupt.pids)


def test_a_job_does_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from touchstone.runs import isolation; isolation.PRELOAD = ();"
        "show = lambda message: print(message['pids'], flush=True);"
        "isolation.run_isolated('tests.support.jobs:hang', payload={}, log=Path('log'), on_message=show)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().strip("[]\n").split(",")]
        parent.send_signal(signal.SIGKILL)
    assert len(pids) == 2
    assert_gone(pids)


def test_a_fork_server_that_died_is_started_again(log: Path) -> None:
    run("answer", log, payload={"a": 2, "b": 3})
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(pid, signal.SIGKILL)
    assert run("answer", log, payload={"a": 2, "b": 3}).value == {"sum": 5}


def test_log_tail_of_an_empty_or_missing_log_is_empty(tmp_path: Path) -> None:
    assert isolation.log_tail(tmp_path / "none") == []
    (tmp_path / "empty").write_bytes(b"")
    assert isolation.log_tail(tmp_path / "empty") == []
    (tmp_path / "odd").write_bytes(b"\xff\xfe\n" * 100)
    assert len(isolation.log_tail(tmp_path / "odd")) == isolation.TAIL_LINES
