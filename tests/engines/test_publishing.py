"""Publishing to a local stand-in for the hub, with the real client and real HTTP."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from tests.support.hub_stand_in import TOKEN, Hub, serving
from tests.support.tiny_seq2seq_source import TinyPairs
from tests.support.tiny_source import TinySource
from touchstone.engines import load_engine
from touchstone.engines.publishing import Provenance, PublishingError, model_card, publish
from touchstone.engines.training import Execution, Recipe, TrainingRun
from touchstone.pipelines import MaskedLM, Pipeline, TokenClassification, Translation

# huggingface_hub hands httpx the files of an LFS upload by a deprecated name; nothing of ours can change that.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

RECIPE = Recipe(epochs=1, batch_size=8, learning_rate=1e-3)
EXECUTION = Execution(seed=3)
CARD = Provenance(
    engine="loop",
    recipe=RECIPE,
    execution=EXECUTION,
    dataset="eriktks/conll2003",
    dataset_revision="abc123",
    base_model="google-bert/bert-base-cased",
    hardware="a machine",
    license="apache-2.0",
    language=("en",),
)
TASKS: dict[str, tuple[type[Pipeline], dict[str, Any], Any]] = {
    "token-classification": (TokenClassification, {"max_length": 64}, AutoModelForTokenClassification),
    "masked-lm": (MaskedLM, {"chunk_length": 16, "probe": "ada likes [MASK] ."}, AutoModelForMaskedLM),
    "translation": (Translation, {"max_length": 12}, AutoModelForSeq2SeqLM),
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    # The hub's newer storage protocol (Xet) has a binary client of its own; the stand-in speaks the older, Git LFS.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with serving() as hub:
        yield hub


@pytest.fixture(params=TASKS)
def trained(request: pytest.FixtureRequest) -> tuple[TrainingRun, Pipeline, Any]:
    kind, options, auto = TASKS[request.param]
    source = TinyPairs() if kind is Translation else TinySource()
    pipeline = kind(source, options=kind.Options(**options), seed=3)
    return load_engine("loop").train(pipeline, recipe=RECIPE, execution=EXECUTION), pipeline, auto


@pytest.fixture
def tagger() -> tuple[TrainingRun, Pipeline]:
    pipeline = TokenClassification(TinySource(), options=TokenClassification.Options(max_length=64), seed=3)
    return load_engine("loop").train(pipeline, recipe=RECIPE, execution=EXECUTION), pipeline


def test_a_published_model_loads_and_equals_the_trained_one(
    hub: Hub, trained: tuple[TrainingRun, Pipeline, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run, pipeline, auto = trained
    commit = publish(run, pipeline, "me/tiny", card=CARD, endpoint=hub.endpoint, token=TOKEN)
    for name, content in hub.repos["me/tiny"].items():
        (tmp_path / name).write_bytes(content)
    loaded = auto.from_pretrained(tmp_path)

    assert commit.commit_url == f"{hub.endpoint}/me/tiny/commit/{commit.oid}"
    assert len(hub.commits) == 1
    assert run.model is not None
    state = run.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in loaded.state_dict().items())
    text = "ada likes oslo ."
    assert pipeline.tokenizer(text)["input_ids"] == AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"]
    assert not list(tmp_path.glob("*.bin"))
    assert capfd.readouterr().out == ""


def test_a_second_push_goes_to_the_same_repository(hub: Hub, tagger: tuple[TrainingRun, Pipeline]) -> None:
    for _ in range(2):
        publish(*tagger, "me/tiny", card=CARD, endpoint=hub.endpoint, token=TOKEN, private=True)

    assert (len(hub.commits), list(hub.repos)) == (2, ["me/tiny"])
    assert hub.private["me/tiny"] == "private"


def test_publish_uses_the_endpoint_of_the_environment(
    hub: Hub, tagger: tuple[TrainingRun, Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.endpoint)  # read from HF_ENDPOINT at import
    publish(*tagger, "me/tiny", card=CARD, token=TOKEN)

    assert "me/tiny" in hub.repos


def test_the_card_has_data_settings_results_and_samples(trained: tuple[TrainingRun, Pipeline, Any]) -> None:
    run, pipeline, _ = trained
    card = model_card(run, pipeline, "me/tiny", card=CARD)
    content = card.content

    assert card.data.base_model == "google-bert/bert-base-cased"
    assert card.data.datasets == ["eriktks/conll2003"]
    assert (card.data.license, card.data.pipeline_tag) == ("apache-2.0", pipeline.hub_task)
    for score in run.evaluations[-1].scores:
        assert f"| {score.name.replace('_', chr(92) + '_')} | " in content
        assert f"| {score.value:.4f} | {score.n:,} | `{score.signature.replace('|', chr(92) + '|')}` |" in content
    for expected in (
        "abc123",
        "0.001",
        "| seed | 3 |",
        torch.__version__.split("+")[0],
        "'me/tiny'",
        "a machine",
    ):
        assert expected in content
    for lines in run.sample_outputs.values():
        assert all(f"    {line}\n" in content for line in lines)


def test_foreign_text_cannot_break_the_card(tagger: tuple[TrainingRun, Pipeline]) -> None:
    nasty = "x\n---\nlicense: evil\n| a | b |\n```\n<script>alert(1)</script> # [y](z)"
    provenance = dataclasses.replace(CARD, dataset=nasty, base_model=nasty, dataset_revision=nasty, hardware=nasty)
    card = model_card(*tagger, "me/tiny", card=provenance)
    front = yaml.safe_load(card.content.split("---\n")[1])

    assert front["license"] == "apache-2.0"
    assert not {"base_model", "datasets"} & front.keys()  # they are not hub ids
    assert "<script>" not in card.content
    assert card.content.count("```") == 2  # the example's own
    assert card.content.count("\n---\n") + card.content.startswith("---\n") == 2
    assert ModelCard(card.content).data.to_dict() == card.data.to_dict()


@pytest.mark.parametrize("repo", ["a/b/c", "spaces are/bad", "me/--", ""])
def test_publish_refuses_an_invalid_name_before_it_writes_files(
    repo: str, tagger: tuple[TrainingRun, Pipeline], tmp_path: Path
) -> None:
    with pytest.raises(PublishingError, match="cannot name a repository"):
        publish(*tagger, repo, card=CARD, staging=tmp_path / "staging")
    assert not (tmp_path / "staging").exists()


@pytest.mark.parametrize(
    ("refuse", "token", "message"),
    [
        ({}, "hf_wrong", "401"),
        ({"/api/repos/create": 403}, TOKEN, "403"),
        ({"/preupload/": 403}, TOKEN, "403"),
        ({"/objects/batch": 403}, TOKEN, "403"),
        ({"PUT /objects/": 403}, TOKEN, "(?s)model.safetensors.*403"),
        ({"/commit/": 403}, TOKEN, "403"),
    ],
)
def test_publish_keeps_run_and_files_if_the_hub_refuses(
    refuse: dict[str, int], token: str, message: str, hub: Hub, tagger: tuple[TrainingRun, Pipeline], tmp_path: Path
) -> None:
    run, pipeline = tagger
    hub.refuse = refuse
    trajectory = list(run.trajectory)
    with pytest.raises(PublishingError, match=message) as error:
        publish(run, pipeline, "me/tiny", card=CARD, staging=tmp_path, endpoint=hub.endpoint, token=token)

    assert str(tmp_path) in str(error.value)
    assert "hf auth login" in str(error.value)
    assert token not in str(error.value)
    assert {p.name for p in tmp_path.iterdir()} >= {"model.safetensors", "config.json", "tokenizer.json", "README.md"}
    assert hub.repos.get("me/tiny", {}) == {}
    assert run.trajectory == trajectory
    assert run.model is not None


def test_publish_names_the_files_if_the_hub_does_not_answer(
    tagger: tuple[TrainingRun, Pipeline], tmp_path: Path
) -> None:
    with serving() as gone:
        pass
    with pytest.raises(PublishingError, match=r"me/tiny was not published.*\n.*kept in"):
        publish(*tagger, "me/tiny", card=CARD, staging=tmp_path, endpoint=gone.endpoint, token=TOKEN)
    assert len(json.loads((tmp_path / "config.json").read_text())["id2label"]) == 5


def test_publish_keeps_the_files_on_failure_without_a_staging_directory(
    tagger: tuple[TrainingRun, Pipeline], hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    hub.refuse = {"/commit/": 403}
    with pytest.raises(PublishingError) as error:
        publish(*tagger, "me/tiny", card=CARD, endpoint=hub.endpoint, token=TOKEN)
    kept = Path(str(error.value).split("kept in ")[1].split(". ")[0])

    assert (kept / "model.safetensors").exists()
