"""The checks as users see them: `--implementation`, the report of a failure, the closing line, exit codes."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from touchstone.contract import NAMES
from touchstone.properties import plugin
from touchstone.properties.check import NotOffered, all_checks, check, ids, judge, run_check
from touchstone.properties.failure import CheckFailed, Mismatch, expect
from touchstone.properties.known import KnownError, read_known
from touchstone.properties.oracles import expect_share
from touchstone.properties.purity import expect_nothing_shared, expect_pure
from touchstone.properties.subject import ImplementationError, Subject, load
from touchstone.properties.values import OneShot, Spelled, fresh, plain, spell_out
from touchstone.stages.ragged import Ragged

ROOT = Path(__file__).parents[2]

RIGHT = """
import math

def perplexity(losses, *, tokens):
    losses, tokens = [float(x) for x in losses], [int(n) for n in tokens]
    if len(losses) != len(tokens):
        raise ValueError(f"{len(losses)} losses for {len(tokens)} counts")
    for i, (loss, n) in enumerate(zip(losses, tokens)):
        if n < 0 or (n and not loss >= 0):
            raise ValueError(f"batch {i}: loss {loss} over {n} tokens")
    if not sum(tokens):
        raise ValueError("no token")
    mean = math.fsum(loss * n for loss, n in zip(losses, tokens) if n) / sum(tokens)
    return math.exp(mean) if mean < 709 else math.inf
"""

WRONG = """
import math

def perplexity(losses, *, tokens):
    return math.exp(sum(losses) / len(losses))
"""


def pytest_on(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`pytest` as a user runs it, from a folder of their own."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "CI"))}
    return subprocess.run(
        command, cwd=folder, env={**clean, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


def properties(folder: Path, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return pytest_on(folder, str(ROOT / "suite/properties"), "--implementation", name, *arguments, **environment)


def line_of(output: str, start: str) -> str:
    return next((line for line in output.splitlines() if line.startswith(start)), f"no line {start!r} in\n{output}")


# --- the closing line and the exit code ------------------------------------------------------------------------------


def test_the_closing_line_counts_and_names_missing_stages(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(RIGHT)
    done = properties(tmp_path, "mine", "-q")

    first = ", ".join([stage for stage in NAMES if stage != "perplexity"][:4])
    assert line_of(done.stdout, "contract:") == f"contract: ran 4 of {len(ids())} checks on mine: no wrong result"
    assert f"{len(ids()) - 4} checks, for want of {first}, ... ({len(NAMES) - 1} functions" in done.stdout
    assert re.search(r"^\d+ passed, \d+ not offered in", done.stdout, re.MULTILINE)
    assert done.returncode == pytest.ExitCode.OK


def test_the_closing_line_names_the_checks_that_a_wrong_implementation_fails(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(WRONG)
    done = properties(tmp_path, "mine", "-q", "-k", "perplexity")

    assert "3 wrong results (X1, X3, X4)" in line_of(done.stdout, "contract:")
    assert re.search(r"^  not selected +\d+ checks$", done.stdout, re.MULTILINE)
    assert re.search(r"^FAILED .*test_perplexity_must_not_depend_on_batching\[X1\]", done.stdout, re.MULTILINE)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_a_run_without_checks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(RIGHT)
    done = properties(tmp_path, "mine", "-q", "-k", "align")

    assert f"contract: ran 0 of {len(ids())} checks on mine" in done.stdout
    assert "no check was run: this says nothing about the implementation" in done.stdout
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_termination_ends_the_session_and_is_no_failed_check(tmp_path: Path) -> None:
    terminating = "import os, signal\n\ndef perplexity(losses, *, tokens):\n    os.kill(os.getpid(), signal.SIGTERM)\n"
    (tmp_path / "mine.py").write_text(terminating)
    done = properties(tmp_path, "mine", "-q", "-k", "perplexity")

    assert "terminated (SIGTERM)" in done.stdout
    assert "X1 failed" not in done.stdout
    assert done.returncode == pytest.ExitCode.INTERRUPTED


def test_an_implementation_may_be_an_attribute_of_a_module(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        WRONG + "\nclass Tools:\n    pass\n\ntools = Tools()\ntools.perplexity = perplexity\ndel perplexity\n"
    )
    done = properties(tmp_path, "mine:tools", "-q", "-k", "weigh_as_much")

    assert line_of(done.stdout, "contract:").endswith("checks on mine:tools: 1 wrong result (X3)")
    assert "  from mine import tools; tools.perplexity([" in done.stdout


def test_the_plugin_works_without_the_suites_conftest() -> None:
    arguments = ("--noconftest", "-p", "touchstone.properties.plugin", "-q", "-k", "vocabulary and perplexity")
    done = pytest_on(ROOT, "suite/properties", *arguments)

    assert f"contract: ran 1 of {len(ids())} checks on touchstone.stages" in done.stdout
    assert done.returncode == pytest.ExitCode.OK


# --- what cannot be tested -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name", "says"),
    [
        pytest.param(None, "nowhere.adapters", ["no module named 'nowhere'", "PYTHONPATH"], id="no such module"),
        pytest.param("import nowhere", "mine", ["mine needs 'nowhere'", "pip install"], id="a missing dependency"),
        pytest.param("1 / 0", "mine", ["importing mine raised ZeroDivisionError", "python -c"], id="a broken module"),
        pytest.param(RIGHT, "mine:tools", ["no attribute 'tools'", "it has math, perplexity"], id="no such object"),
        pytest.param("x = 1", "mine", ["offers no function of the contract", "docs/contract.md"], id="no stage"),
        pytest.param(RIGHT, "mine.py", ["'mine.py' is not a module name"], id="a file"),
        pytest.param(
            "def group_texts(examples): ...\ndef alignlabels(labels): ...\n",
            "mine",
            ["`group_texts` does the work of chunk", "`alignlabels` is nearly align_labels"],
            id="other names",
        ),
        pytest.param("exit(3)", "mine", ["exit code 3", "touchstone audit mine.py"], id="a script"),
        pytest.param(f"{RIGHT}supports = {{'tag': [1]}}", "mine", ["supports['tag']"], id="an unknown argument"),
        pytest.param(
            f"{RIGHT}choices = {{'ties': 'last'}}", "mine", ["'last'", "'first' or 'any'"], id="a wrong choice"
        ),
        pytest.param(
            "def perplexity(losses, tokens, base): ...", "mine", ["needs `base`"], id="an argument that nobody passes"
        ),
        pytest.param(
            "def perplexity(losses): ...", "mine", ["takes no `tokens`"], id="an argument that it cannot do without"
        ),
    ],
)
def test_load_explains_why_an_implementation_cannot_be_imported(
    source: str | None, name: str, says: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(source or "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)

    with pytest.raises(ImplementationError) as caught:
        load(name)
    assert [part for part in says if part not in str(caught.value)] == []
    sys.modules.pop("mine", None)


def test_a_wrong_implementation_name_ends_the_run_before_collection(tmp_path: Path) -> None:
    done = properties(tmp_path, "nowhere.adapters")

    assert "ERROR: --implementation nowhere.adapters: no module named 'nowhere'" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode == pytest.ExitCode.USAGE_ERROR


# --- what a failure says ---------------------------------------------------------------------------------------------


def test_a_failure_report_shows_the_rule_the_input_both_results_and_a_line_that_reproduces_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(WRONG)
    done = properties(tmp_path, "mine", "-q", "-k", "weigh_as_much")

    report = done.stdout
    assert "X3 failed for mine: a batch must weigh as much as its tokens" in report
    assert "  called     perplexity\n               [0.0, 1.0]\n               tokens = [1, 2]" in report
    assert "  expected   1.9477340410546757" in report
    assert "  got        1.6487212707001282" in report
    assert re.search(r"the rule is X3 of docs/contract.md, the check suite/properties/test_perplexity.py:\d+", report)
    for noise in ("Falsifying example", "@reproduce_failure", "hypothesis/core.py", "Traceback"):
        assert noise not in report

    pasted = report.split("paste this to reproduce it:\n")[1].splitlines()[0].strip()
    assert pasted == "from mine import perplexity; perplexity([0.0, 1.0], tokens=[1, 2])"
    again = pasted.replace("; ", "; print(", 1) + ")"
    shown = subprocess.run([sys.executable, "-c", again], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "1.6487212707001282"


def test_an_exception_is_shown_with_the_frames_of_the_implementation(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def perplexity(losses, *, tokens):\n    return {}['oops']\n")
    done = properties(tmp_path, "mine", "-q", "-k", "weigh_as_much")

    assert "  got        KeyError: 'oops'" in done.stdout
    assert "mine.py" in done.stdout.split("raised here:")[1]
    assert "return {}['oops']" in done.stdout
    assert "hypothesis/core.py" not in done.stdout


def test_run_check_reports_an_implementation_that_is_not_deterministic() -> None:
    names: dict[str, Any] = {}
    exec(RIGHT, names)
    calls: list[int] = []

    def perplexity(losses: Any, *, tokens: Any) -> float:
        calls.append(1)
        right: float = names["perplexity"](losses, tokens=tokens)
        return right + 1 if len(calls) == 1 else right

    moody = SimpleNamespace(perplexity=perplexity)

    with pytest.raises(CheckFailed, match="not deterministic"):
        run_check("X2", moody, max_examples=1)


def test_a_result_of_the_wrong_form_fails_the_check() -> None:
    formless = SimpleNamespace(
        align_labels=lambda labels, **options: None,
        pad_batch=lambda features, **options: {"input_ids": 7},
    )

    with pytest.raises(CheckFailed, match="expected   a flat sequence of integers\n  got        NoneType: None"):
        run_check("A1", formless)
    with pytest.raises(CheckFailed, match=r"a result of the contract's form\n.*TypeError in the check: "):
        run_check("P4", formless)


def test_warnings_of_an_implementation_are_not_shown() -> None:
    source = RIGHT.replace("    mean =", "    import warnings; warnings.warn('old', DeprecationWarning)\n    mean =")
    names: dict[str, Any] = {}
    exec(source, names)

    run_check("X3", SimpleNamespace(perplexity=names["perplexity"]))


# --- an implementation that supports a part, or fails in other ways than its results ----------------------------------

IOB2 = """
supports = {"scheme": ["IOB2"], "strategy": ["all"]}

def align_labels(labels, *, word_ids, names):
    result, previous = [], None
    for word in word_ids:
        if word is None:
            result.append(-100)
        elif word != previous or not names[labels[word]].startswith("B-"):
            result.append(labels[word])
        else:
            result.append(names.index("I-" + names[labels[word]][2:]))
        previous = word
    return result
"""


def test_examples_outside_the_declared_domain_are_not_drawn(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(IOB2)
    done = properties(tmp_path, "mine", "-q", "-k", "align_labels")

    assert line_of(done.stdout, "contract:").endswith("checks on mine: no wrong result")
    assert "in part      align_labels: scheme IOB2 only, strategy all only, takes no sequence_ids" in done.stdout
    assert done.returncode == pytest.ExitCode.OK


def test_a_refusal_counts_only_with_strict_checks(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(IOB2)
    done = properties(tmp_path, "mine", "-q", "-k", "label_id_outside")
    strict = properties(tmp_path, "mine", "-q", "-k", "label_id_outside", "--strict-checks")

    assert "refusals     0 of 1 hold; not refused: A11 (not counted; --strict-checks counts them)" in done.stdout
    assert "  A11: align_labels must refuse a label id outside the names\n      from mine import" in done.stdout
    assert "1 not refused" in done.stdout
    assert done.returncode == pytest.ExitCode.OK
    assert strict.returncode == pytest.ExitCode.TESTS_FAILED


RAISING = """
import math

def perplexity(losses, *, tokens):
    if len(losses) > 2:
        raise KeyError("too many")
    return math.exp(sum(losses) / len(losses))
"""


def test_an_exception_is_reported_once_and_the_search_goes_on_without_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(RAISING)
    done = properties(tmp_path, "mine", "-q", "-k", "perplexity")

    assert done.stdout.count("got        KeyError") == 1
    assert "X3 failed for mine: a batch must weigh as much as its tokens" in done.stdout
    assert "inputs that raise as X1 reports were left out of" in done.stdout


def test_a_wrong_result_is_found_behind_a_call_of_a_bad_form() -> None:
    subject = Subject.of("touchstone.stages")
    [found] = [each for each in all_checks() if each.name == "test_pack_batch_must_equal_pack"]

    def run() -> None:
        if "form" not in subject.muted:
            raise CheckFailed("F10", "the result shares memory", kind="form")
        raise CheckFailed("F10", "the result is wrong")

    verdict = judge(found, subject, run)

    assert [failure.kind for failure in verdict.failures] == ["result", "form"]
    assert subject.muted == set()


KNOWN = """
[[known]]
check = "X3"
reason = "it averages over batches"
link = "https://example.org/1"

[[known]]
check = "X2"
reason = "long since mended"

[[known]]
check = "Z9"
reason = "no such check"
"""


def test_known_failures_do_not_count_and_stale_entries_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(WRONG)
    (tmp_path / "known.toml").write_text(KNOWN)
    done = properties(tmp_path, "mine", "-q", "-k", "weigh_as_much or X2", "--known", "known.toml")

    assert "known        X3: it averages over batches (https://example.org/1)" in done.stdout
    assert "known        X2 is listed as a known failure and holds: remove it from the file" in done.stdout
    assert "known        Z9 is no check of docs/contract.md" in done.stdout
    assert done.returncode == pytest.ExitCode.OK


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("known = 3", "known: input should be a valid list"),
        ("[[known]]\ncheck = 'X1'", "known.0.reason: field required"),
        ("[[known]]\ncheck = 'X1'\nreason = 'a'\n" * 2, "X1 is listed twice"),
        ("[[known", "is not TOML"),
    ],
)
def test_a_file_of_known_failures_is_read_or_refused_with_the_place(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "known.toml").write_text(text)

    with pytest.raises(KnownError) as caught:
        read_known(tmp_path / "known.toml")
    assert says in str(caught.value)


# --- the same examples every time ------------------------------------------------------------------------------------

LOGGING = RIGHT.replace(
    "    losses, tokens = [", "    print(losses, tokens, file=open('log', 'a'))\n    losses, tokens = [", 1
)


@pytest.fixture
def seen(tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs a check and returns the arguments that the implementation got."""
    (tmp_path / "mine.py").write_text(LOGGING)

    def run(*arguments: str, **environment: str) -> str:
        (tmp_path / "log").unlink(missing_ok=True)
        properties(tmp_path, "mine", "-q", "-k", "weigh_as_much", *arguments, **environment)
        return (tmp_path / "log").read_text()

    return run


def test_every_run_draws_the_same_examples_with_and_without_ci(seen: Callable[..., str]) -> None:
    assert seen() == seen(CI="true")


def test_a_hypothesis_seed_draws_other_examples_and_repeats_them(seen: Callable[..., str]) -> None:
    first = seen("--hypothesis-seed=11")

    assert seen("--hypothesis-seed=11") == first
    assert seen() != first


def test_the_profile_determines_the_number_of_examples(seen: Callable[..., str]) -> None:
    assert seen().count("\n") == plugin.EXAMPLES["quick"]
    assert seen("--hypothesis-profile=ci").count("\n") == plugin.EXAMPLES["ci"]


def test_run_check_draws_the_same_examples_with_the_same_seed() -> None:
    def inputs(seed: int) -> list[Any]:
        names: dict[str, Any] = {}
        exec(RIGHT, names)
        given: list[Any] = []

        def perplexity(losses: Any, *, tokens: Any) -> Any:
            given.append((losses, tokens))
            return names["perplexity"](losses, tokens=tokens)

        run_check("X3", SimpleNamespace(perplexity=perplexity), seed=seed, max_examples=20)
        return given

    assert inputs(3) == inputs(3)
    assert inputs(3) != inputs(4)
    assert len(inputs(3)) == 20


# --- the registry ----------------------------------------------------------------------------------------------------


def test_the_checks_are_exactly_the_rows_of_the_contract() -> None:
    rows = re.findall(r"^\| ([A-Z]\d+) \|", (ROOT / "docs/contract.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert rows == list(ids())
    assert set(rows) == {found.id for found in all_checks()}


def test_a_check_needs_stages_of_the_contract() -> None:
    assert {stage for found in all_checks() for stage in found.needs} == set(NAMES)


def test_check_refuses_an_unknown_id() -> None:
    def test_nothing(implementation: Subject) -> None: ...

    with pytest.raises(ValueError, match="'Z1' is not the id of a check"):
        check("Z1", needs="align_labels")(test_nothing)
    with pytest.raises(ValueError, match="needs 'align', which is not a function"):
        check("A1", needs="align")(test_nothing)
    with pytest.raises(ValueError, match="A99"):
        run_check("A99", "touchstone.stages")


def test_run_check_names_the_missing_stages() -> None:
    with pytest.raises(NotOffered, match="does not offer align_labels_batch"):
        run_check("A13", SimpleNamespace(align_labels=lambda labels, **options: labels))


# --- the parts -------------------------------------------------------------------------------------------------------

VALUES = [
    [1, None, True, "B-X", 0.5, float("inf")],
    {"a": [[1], []], "b": (1,)},
    (1, (2, 3)),
    Spelled("[i // 3 for i in range(9)]"),
    np.array([1, 2]),
    np.array([], dtype=np.int64),
    np.array([1, None], dtype=object),
    np.int64(3),
    Ragged.from_lists([[1], [], [2, 3]]),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_spell_out_returns_python_source_of_the_value(value: Any) -> None:
    again = eval(spell_out(value), {"np": np, "Ragged": Ragged})

    assert plain(value) == plain(again)


@pytest.mark.parametrize("value", VALUES[1:-2], ids=repr)
def test_fresh_returns_an_equal_value_that_shares_no_memory(value: Any) -> None:
    copy = fresh(value)

    assert plain(value) == plain(copy)
    expect_nothing_shared(copy, arguments=value)


def test_an_implementation_gets_one_shot_as_an_iterator() -> None:
    given = fresh(OneShot([[1], [2]]))

    assert list(given) == [[1], [2]]
    assert list(given) == []


def test_expect_locates_the_first_difference() -> None:
    with pytest.raises(Mismatch) as caught:
        expect({"a": [[1, 2], [3, 4]]}, {"a": [[1, 2], [3, 5]]})

    assert caught.value.where == "at ['a'][1][1]: expected 4, got 5"


ROW = np.arange(4)
PURITY: dict[str, tuple[Callable[..., Any], str]] = {
    "changes its argument": (lambda losses, *, tokens: losses.append(1.0), "arguments changed"),
    "returns its argument": (lambda losses, *, tokens: losses, "a new object"),
    "returns an item twice": (lambda losses, *, tokens: [ROW.copy()] * 2, "a new object"),
    "returns two views": (lambda losses, *, tokens: (lambda row: [row[:3], row[1:]])(ROW.copy()), "separate memory"),
    "repeats one cell": (lambda losses, *, tokens: np.broadcast_to(np.zeros(1), (3,)), "a cell for each value"),
    "draws globally": (lambda losses, *, tokens: float(random.random() < 2), "global random generators"),
}


@pytest.mark.parametrize(("stage", "says"), PURITY.values(), ids=PURITY)
def test_expect_pure_refuses_an_impure_stage(stage: Callable[..., Any], says: str) -> None:
    subject = Subject.of(SimpleNamespace(perplexity=stage))

    with pytest.raises(Mismatch) as caught:
        expect_pure(subject, "perplexity", [1.0, 2.0], tokens=[1, 2])
    assert says in f"{caught.value} {caught.value.where}"


def test_expect_pure_accepts_a_pure_stage() -> None:
    subject = Subject.of(SimpleNamespace(perplexity=lambda losses, *, tokens: {"a": [list(losses), list(losses)]}))

    expect_pure(subject, "perplexity", [1.0, 2.0], tokens=[1, 2])


@pytest.mark.parametrize(
    ("count", "n", "probability"), [(0, 10_000, 0.0), (10_000, 10_000, 1.0), (1500, 10_000, 0.15), (0, 0, 0.5)]
)
def test_expect_share_accepts_a_count_within_its_bounds(count: int, n: int, probability: float) -> None:
    expect_share(count, n=n, probability=probability, of="tokens")


@pytest.mark.parametrize(
    ("count", "n", "probability"), [(1, 10_000, 0.0), (9_999, 10_000, 1.0), (1200, 10_000, 0.15), (1800, 10_000, 0.15)]
)
def test_expect_share_refuses_a_count_outside_its_bounds(count: int, n: int, probability: float) -> None:
    with pytest.raises(Mismatch, match="independent draws"):
        expect_share(count, n=n, probability=probability, of="tokens")


def test_expect_share_accepts_the_draws_of_a_good_generator() -> None:
    """200 counts, each with a false alarm of 1e-14 by design: one failure would disprove the bounds."""
    generator = np.random.default_rng(2024)
    for probability in (0.001, 0.15, 0.5, 0.9):
        for count in generator.binomial(10_000, probability, size=50):
            expect_share(int(count), n=10_000, probability=probability, of="tokens")
