"""Expectations: stored next to their spec, and applied to no other."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.support.samples import OPEN, SPEC, open_spec, sample_spec, write_spec
from touchstone.specs.expectation import (
    Card,
    Expectation,
    ExpectationError,
    Measured,
    Published,
    expectations_path,
    load_expectations,
    save_expectations,
)
from touchstone.specs.spec import SPECS, Spec, available_specs, load_spec, profiles, variants
from touchstone.specs.verdict import judge

MEASURED = Measured(
    hardware="xeon-2c-24g",
    software={"torch": "2.13.0"},
    engine="loop",
    precision="fp32",
    date=datetime.date(2026, 1, 1),
    dataset_fingerprint="sha256:" + "a" * 64,
)


def expectation(spec: Spec, **changes: object) -> Expectation:
    fields: dict[str, object] = {
        "metric": "f1",
        "values": (0.8, 0.82, 0.81),
        "seeds": (0, 1, 2),
        "higher_is_better": True,
        "spec_hash": spec.hash,
        "provenance": MEASURED,
    }
    return Expectation.model_validate(fields | changes)


def test_load_expectations_returns_what_was_saved(tmp_path: Path) -> None:
    spec = sample_spec(tmp_path)
    saved = [expectation(spec), expectation(spec, metric="perplexity", values=(3.0, 4.0, 5.0), scale="log", lower=1.0)]

    path = save_expectations(spec, saved)

    assert tmp_path / "expectations" / "ner.embedded.json" == path
    assert load_expectations(spec) == {one.metric: one for one in saved}


def test_load_expectations_returns_nothing_without_a_file(tmp_path: Path) -> None:
    assert load_expectations(sample_spec(tmp_path)) == {}


def test_each_variant_has_a_separate_expectations_file(tmp_path: Path) -> None:
    save_expectations(sample_spec(tmp_path), [expectation(sample_spec(tmp_path))])

    assert load_expectations(sample_spec(tmp_path, variant="first")) == {}
    assert expectations_path(sample_spec(tmp_path, variant="first")).name == "ner+first.embedded.json"


def test_the_open_division_is_judged_by_the_closed_expectation(tmp_path: Path) -> None:
    closed, fast = sample_spec(tmp_path), open_spec(tmp_path)
    save_expectations(closed, [expectation(closed)])

    target = load_expectations(fast, dataset_fingerprint="sha256:" + "a" * 64)["f1"]

    assert expectations_path(closed) == expectations_path(fast)
    assert ((verdict := judge([0.99], expectation=target)).status, verdict.high) == ("as-expected", None)
    assert judge([0.99], expectation=load_expectations(closed)["f1"]).status == "better-than-expected"
    other = load_expectations(fast, dataset_fingerprint="sha256:" + "b" * 64)["f1"]
    assert "stale: measured on other data" in judge([0.99], expectation=other).explanation


def test_the_open_division_has_no_target_if_the_closed_recipe_changed(tmp_path: Path) -> None:
    save_expectations(sample_spec(tmp_path), [expectation(sample_spec(tmp_path))])
    changed = write_spec(tmp_path, text=SPEC.replace("epochs = 1", "epochs = 2") + OPEN)

    found = load_expectations(load_spec(changed, profile="embedded", variant="fast"))["f1"]

    assert judge([0.9], expectation=found).status == "no-expectation"


def test_save_expectations_refuses_the_open_division(tmp_path: Path) -> None:
    fast = open_spec(tmp_path)

    with pytest.raises(ExpectationError, match=r"ner\+fast belongs to the open division, .*: calibrate ner$"):
        save_expectations(fast, [expectation(fast)])
    assert not (tmp_path / "expectations").exists()


def test_an_expectation_of_another_spec_is_stale_and_not_applied(tmp_path: Path) -> None:
    save_expectations(sample_spec(tmp_path), [expectation(sample_spec(tmp_path))])
    changed = load_spec(write_spec(tmp_path, text=SPEC.replace("epochs = 1", "epochs = 2")), profile="embedded")

    verdict = judge([0.81], expectation=load_expectations(changed)["f1"])

    assert verdict.status == "no-expectation"
    assert "stale: measured with another spec" in verdict.explanation
    assert verdict.low is None


def test_an_expectation_of_other_data_is_stale_and_not_applied(tmp_path: Path) -> None:
    spec = sample_spec(tmp_path)
    save_expectations(spec, [expectation(spec)])

    same = load_expectations(spec, dataset_fingerprint="sha256:" + "a" * 64)["f1"]
    other = load_expectations(spec, dataset_fingerprint="sha256:" + "b" * 64)["f1"]

    assert judge([0.81], expectation=same).status == "as-expected"
    verdict = judge([0.81], expectation=other)
    assert verdict.status == "no-expectation"
    assert "stale: measured on other data (sha256:aaaaaaaaaaaa, this is sha256:bbbbbbbbbbbb)" in verdict.explanation


def test_staleness_is_computed_and_not_stored(tmp_path: Path) -> None:
    spec = sample_spec(tmp_path)
    path = save_expectations(spec, [expectation(spec).model_copy(update={"stale": "because"})])

    assert "stale" not in path.read_text()
    assert load_expectations(spec)["f1"].stale is None


def test_save_expectations_refuses_values_of_another_spec(tmp_path: Path) -> None:
    with pytest.raises(ExpectationError, match="f1 was measured with spec 000000000000"):
        save_expectations(sample_spec(tmp_path), [expectation(sample_spec(tmp_path), spec_hash="0" * 64)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0, 1)}, "3 values and 2 seeds"),
        ({"seeds": (0, 1, 1)}, "repeat: measure each value with a different seed"),
        ({"values": (), "seeds": ()}, "at least 1 item"),
        ({"values": (0.8, 0.82, float("nan"))}, "finite"),
        ({"values": (0.0, 0.82, 0.81), "scale": "log"}, "no logarithm"),
        ({"upper": 0.815}, "outside"),
        ({"provenance": Published(sources=(Card(name="a", url="u"),))}, "3 values and 1 sources"),
        ({"spec_hash": "abc"}, "pattern"),
        ({"tolerance": 0.1}, "Extra inputs"),
    ],
)
def test_inconsistent_expectations_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        expectation(sample_spec(tmp_path), **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(extra=1), "extra is not a known key"),
        (lambda data: data.update(name="other"), "belongs to other, profile embedded: rename the file"),
        (lambda data: data["expectations"][0].pop("metric"), "expectations[0].metric is missing: add it"),
        (lambda data: data["expectations"][0].update(values=["0.8", 1, 2]), "expectations[0].values[0] = '0.8'"),
        (lambda data: data["expectations"].append(data["expectations"][0]), "expectations of f1 occur twice"),
    ],
)
def test_load_expectations_refuses_a_wrong_file_with_file_and_key(tmp_path: Path, change: object, message: str) -> None:
    spec = sample_spec(tmp_path)
    path = save_expectations(spec, [expectation(spec)])
    data = json.loads(path.read_text())
    change(data)  # type: ignore[operator]
    path.write_text(json.dumps(data))

    with pytest.raises(ExpectationError) as caught:
        load_expectations(spec)

    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_committed_expectations_belong_to_specs_and_are_not_stale() -> None:
    """If a spec was changed on purpose: calibrate again, or, for published values, make sure that it is still the
    published recipe.
    """
    loaded = {}
    for name in available_specs():
        for profile in profiles(name):
            for variant in (None, *variants(name, profile=profile)):
                spec = load_spec(name, profile=profile, variant=variant)
                found = load_expectations(spec)
                assert {metric: one.stale for metric, one in found.items() if one.stale} == {}, (
                    f"{spec.name}, {profile}: the spec's hash is now {spec.hash}"
                )
                if found:
                    loaded[expectations_path(spec)] = found

    assert sorted(loaded) == sorted((SPECS / "expectations").glob("*.json"))


def test_published_expectations_accept_the_course_and_refuse_other_recipes() -> None:
    ner = load_expectations(load_spec("token-classification", profile="course"))["token_f1"]
    mlm = load_expectations(load_spec("masked-lm", profile="course"))["perplexity"]

    assert (len(ner.values), len(mlm.values)) == (24, 9)
    assert judge([0.9433], expectation=ner).status == "as-expected"
    assert judge([0.9347], expectation=ner).status == "worse"  # a card with batches of 32
    assert judge([0.9482], expectation=ner).status == "better-than-expected"  # a card with another label alignment
    assert judge([11.32], expectation=mlm).status == "as-expected"
    assert judge([21.75], expectation=mlm).status == "worse"  # before training
    assert all(card.url.startswith("https://huggingface.co/") for card in ner.provenance.sources)
