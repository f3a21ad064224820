"""The page is one file that loads nothing, runs nothing and escapes everything."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tests.auditing import reports
from touchstone.auditing.finding import Example, Finding, Report
from touchstone.auditing.reporting.page import chips, parts

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e\x1b"
VOID = {"meta", "br", "img", "link"}


class Outline(HTMLParser):
    """Collects the tags, attributes and text of a document, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> list[str | None]:
        return [attributes["href"] for tag, attributes in self.tags if "href" in attributes]


def hostile() -> Report:
    """A report whose every text tries to break out of the page."""
    example = Example((HOSTILE,), [(HOSTILE,)], marked=(0,), caption=HOSTILE)
    batch = Example(("token", "label", "seen"), [(HOSTILE, HOSTILE, "supervised")], caption=HOSTILE)
    findings = [
        Finding("a", "fail", HOSTILE, HOSTILE, HOSTILE, [HOSTILE], example, HOSTILE),
        Finding("b", "warn", HOSTILE, ignored=HOSTILE),
        Finding("c", "pass", HOSTILE),
        Finding("d", "not-checked", HOSTILE, HOSTILE),
    ]
    return Report(HOSTILE, HOSTILE, findings, batch=(batch,))


@pytest.mark.parametrize(
    "report", [reports.faulty(), hostile(), Report("s", "t", [])], ids=["faulty", "hostile", "empty"]
)
def test_a_page_is_well_formed_and_loads_and_runs_nothing(report: Report) -> None:
    for text in (report.html(), report._repr_html_()):
        outline = Outline(text)
        names = {tag for tag, _ in outline.tags}
        assert not names & {"script", "img", "iframe", "link", "object", "svg", "form", "base"}
        for _, attributes in outline.tags:
            assert not {name for name in attributes if name.startswith("on") or name in ("src", "style")}
        assert "url(" not in text
        assert "@import" not in text


def test_every_text_of_the_data_is_shown_as_text() -> None:
    text = hostile().html()

    assert "<script>" not in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert Outline(text).text.count("<img src=x onerror=alert(1)>") >= 12


def test_a_page_forbids_all_connections() -> None:
    assert "default-src 'none'" in reports.faulty().html()


def test_the_same_report_gives_the_same_bytes() -> None:
    assert reports.faulty().html() == reports.faulty().html()


def test_a_fragment_is_an_element_and_a_page_is_a_document() -> None:
    page, fragment = reports.faulty().html(), reports.faulty()._repr_html_()

    assert page.startswith("<!DOCTYPE html>")
    assert {"html", "head", "body"} & {tag for tag, _ in Outline(fragment).tags} == set()
    style = re.search(r"<style>(.*?)</style>", fragment, flags=re.DOTALL)
    assert style is not None
    selectors = re.findall(r"(?:^|\})\s*([^@{}]+?)\s*\{", style[1], flags=re.MULTILINE)
    assert all(part.strip().startswith(".ts") for each in selectors for part in each.split(",")), selectors


def test_references_to_known_repositories_become_links() -> None:
    assert Outline(reports.faulty().html()).links() == [
        "https://github.com/huggingface/transformers/issues/47688",
        "https://github.com/huggingface/transformers/issues/39241",
    ]


@pytest.mark.parametrize(
    "text", ["mytransformers#1", "a/transformers#1", "nobody#3", "transformers#x", "transformers #1"]
)
def test_other_references_stay_text(text: str) -> None:
    assert list(parts(text)) == [(text, "")]


def test_a_page_shows_every_finding_with_its_example_and_repro() -> None:
    report = reports.faulty()
    text = Outline(report.html()).text

    for finding in report:
        assert finding.probe in text
        assert finding.message in text
        assert finding.repro in text
    assert "ran 16 of 20 probes" in text


def test_a_run_of_padding_is_one_chip() -> None:
    shown = list(chips(reports.faulty().batch[0]))

    assert [chip.token for chip in shown][-2:] == ["[SEP]", "[PAD]"]
    assert shown[-1].count == 3
    assert len(shown) == len(reports.WORDS) - 2
