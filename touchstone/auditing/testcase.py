"""`touchstone.TrainerAudit`: the audit as tests in one's own suite, one per probe."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from touchstone.auditing.finding import Finding
from touchstone.auditing.probe import BUDGETS, Budget, chosen_probes, load_probes, run_probe
from touchstone.auditing.reporting.table import finding_text
from touchstone.auditing.subject import UNKNOWN, Subject

WIDTH = 100


class AuditWarning(UserWarning):
    """The audit found something suspicious, or an effect of known size."""


class TrainerAudit:
    """Subclass it in a test module and define `make_trainer`; pytest then runs one test per probe.

    >>> class TestMyRun(TrainerAudit):
    ...     ignore = {"evaluation-loss": "we report the score, not the loss"}
    ...
    ...     def make_trainer(self, **overrides):
    ...         return build_trainer(TrainingArguments("out", **overrides))  # doctest: +SKIP

    A fault fails its test, a suspicion is shown as a warning, and what was not checked is skipped with the reason.
    Choose tests by the probe's id: `pytest -k special-tokens-unlabelled`.

    Attributes:
        budget: `fast`, `default` or `deep`. Probes of larger budgets are skipped.
        task: the task, where the head does not tell. Probes of other tasks are then not collected.
        raw: the rows that the training data was made of, index by index.
        columns: the columns of `raw` that matter, such as ("tokens", "ner_tags").
        ignore: findings that are expected to fail (xfail): the reason, by the probe's id.
    """

    budget: ClassVar[Budget] = "default"
    task: ClassVar[str | None] = None
    raw: Any = None
    columns: Sequence[str] | None = None
    ignore: ClassVar[Mapping[str, str]] = {}
    _made: ClassVar[Subject | Exception | None] = None

    def make_trainer(self, **overrides: Any) -> Any:
        """Return a new trainer that has not begun to train.

        It is called once for all tests of the class, without overrides. A probe that needs another seed or batch size
        calls it again with these as names of TrainingArguments.
        """
        raise NotImplementedError(f"{type(self).__name__} must define make_trainer(self, **overrides)")

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """Give `test_probe` one case per probe."""
        if "probe" not in metafunc.fixturenames or metafunc.cls is not cls:
            return
        if cls.budget not in BUDGETS:
            raise pytest.UsageError(f"{cls.__name__}.budget is {cls.budget!r}: possible are {', '.join(BUDGETS)}")
        chosen_probes(UNKNOWN, cls.ignore)  # no ids that do not exist
        for probe, reason in cls.ignore.items():
            if not reason.strip():
                raise pytest.UsageError(f"{cls.__name__}.ignore has no reason for {probe}")
        ids = list(load_probes()) if cls.task is None else [each.id for each in chosen_probes(cls.task)]
        metafunc.parametrize("probe", ids)

    @pytest.fixture
    def audit_subject(self) -> Subject:
        """The subject of the trainer, made once for all tests of the class."""
        # Not a fixture of class scope: what make_trainer sets on self, such as self.raw, would be lost in newer pytest.
        made = type(self).__dict__.get("_made")
        if made is None:
            try:
                made = self._make_subject()
            except Exception as error:
                made = error
            type(self)._made = made
        if isinstance(made, Exception):
            raise made
        assert isinstance(made, Subject)
        return made

    def _make_subject(self) -> Subject:
        from touchstone.auditing.adapters.trainer import subject_of

        trainer = self.make_trainer()
        return subject_of(trainer, raw=self.raw, columns=self.columns, task=self.task)

    @classmethod
    def teardown_class(cls) -> None:
        """Let the trainer go."""
        cls._made = None

    def test_probe(self, probe: str, audit_subject: Subject) -> None:
        """Run one probe."""
        each = load_probes()[probe]
        levels = list(BUDGETS)
        if levels.index(each.budget) > levels.index(self.budget):
            pytest.skip(f'needs budget = "{each.budget}"')
        if audit_subject.task not in each.tasks:
            pytest.skip(f"is for {', '.join(each.tasks)}, and this is {audit_subject.task}")
        judge(run_probe(each, audit_subject), ignore=self.ignore.get(probe))


def judge(finding: Finding, *, ignore: str | None = None) -> None:
    """Turn a finding into the outcome of the test that runs: failed, xfailed, warned, skipped or passed."""
    if finding.outcome == "not-checked":
        pytest.skip(finding.message)
    if finding.outcome == "pass":
        if ignore:
            warnings.warn(f"{finding.probe} passes now: remove it from ignore", AuditWarning, stacklevel=2)
        return
    if ignore:
        pytest.xfail(ignore)
    if finding.outcome == "fail":
        pytest.fail(finding_text(finding, width=WIDTH), pytrace=False)
    cause = f": {finding.cause}" if finding.cause else ""
    warnings.warn(f"{finding.probe}: {finding.message}{cause}", AuditWarning, stacklevel=2)
