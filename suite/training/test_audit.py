"""With --audit: audit the trainer of each trial instead of training it. No probe may find a fault."""

from __future__ import annotations

import pytest

from touchstone.interface.config import CONFIG
from touchstone.interface.options import OptionError
from touchstone.runs.trials import Trial

ENGINE = "trainer"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "trial" not in metafunc.fixturenames:
        return
    suite = metafunc.config.stash[CONFIG]
    trials: list[Trial] = []
    try:
        trials = [trial for trial in suite.trials() if trial.engine == ENGINE]
        if not trials:
            suite.problem = f"--audit needs the engine {ENGINE}, which makes a transformers.Trainer"
    except OptionError as error:
        suite.problem = str(error)  # reported as a usage error at the end of collection
    metafunc.parametrize("trial", trials, ids=[trial.name for trial in trials])


@pytest.mark.filterwarnings("default")  # warnings of the libraries are not what is judged
def test_the_audit_finds_no_fault(trial: Trial) -> None:
    from touchstone.auditing.reporting.table import as_text, finding_text
    from touchstone.interface.spec_audit import audit_trial

    report = audit_trial(trial)

    print(as_text(report))  # pytest -rA shows it
    if failures := report.failures():
        pytest.fail("\n\n".join(map(finding_text, failures)), pytrace=False)
    assert report.ran > 0, report.verdict
