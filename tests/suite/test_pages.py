"""The README and docs/ hold what the code and the committed files say."""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import re
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from tools.findings.properties import FAULTS, Fault

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


CODE = re.compile(r"`[^`]*`")


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_readme_has_at_most_150_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_python_of_the_readme_runs_and_prints_what_it_shows() -> None:
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False, optionflags=flags)

    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_lines_have_at_most_120_characters(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()

    prose = [(number, line) for number, line in enumerate(lines, 1) if not line.startswith(("|", "    ", "#"))]
    long = [number for number, line in prose if len(CODE.sub("", line)) > 120]

    assert long == [], "wrap these lines, so that a diff can be read"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        place = (page.parent / target) if target else page
        assert place.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(place), f"{page.name} links to {target}#{anchor}"


def test_the_results_page_is_what_its_generator_writes() -> None:
    written = subprocess.run(
        [sys.executable, "tools/results_page.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == written.stdout, (
        "run: python tools/results_page.py > docs/results.md"
    )


def test_the_glossary_has_at_most_40_entries() -> None:
    entries = re.findall(r"^- \*\*", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), flags=re.MULTILINE)

    assert 20 <= len(entries) <= 40


def test_the_findings_page_is_what_its_generator_writes() -> None:
    from tools.findings.page import page

    written = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m tools.findings page > docs/findings.md"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.code)
def test_the_line_of_a_fault_prints_what_the_page_says(fault: Fault) -> None:
    for name, number in re.findall(r"(?:^|with )(torchmetrics|transformers|seqeval|sacrebleu) (\d[\d.]*)", fault.code):
        if version(name) != number:
            pytest.skip(f"the page is about {name} {number}")
    printed = io.StringIO()
    state = np.random.get_state()
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(fault.line, {})
    except (AttributeError, RuntimeError) as error:
        printed.write(f"{type(error).__name__}: {error}")
    finally:
        np.random.set_state(state)

    assert printed.getvalue().strip() == fault.prints


@pytest.mark.parametrize(
    ("subject", "probe", "outcome"),
    [
        ("run_ner-accumulated", "accumulation-divided", "fail"),
        ("run_translation-accumulated", "accumulation-divided", "fail"),
        ("course-7.6-trainer", "loss-is-the-mean-over-labels", "warn"),
        ("run_ner", "evaluation-loss-by-token", "warn"),
        ("run_ner-grouped", "same-seed-same-order", "warn"),
    ],
)
def test_the_audit_finds_the_known_faults_of_libraries_in_real_code(subject: str, probe: str, outcome: str) -> None:
    from tools.findings.page import grouped

    record = json.loads((ROOT / "tools" / "findings" / "record.json").read_text(encoding="utf-8"))
    assert subject in dict(grouped(record)[outcome, probe])
