"""The packed engine as a whole: it has the losses of the loop, for every kind of embedding and output layer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from touchstone.engines import loop
from touchstone.engines.training import EngineError, Execution, Progress, Recipe, TrainingRun
from touchstone.packed import attention, modules
from touchstone.packed import engine as packed
from touchstone.packed import unpadded as unpadded_module
from touchstone.packed.attention import NAME
from touchstone.packed.modules import Head, Lookup, MaskSource
from touchstone.packed.unpadded import Unpadded
from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import FeatureRows, Pipeline
from touchstone.suite.reproducibility.comparing import (
    assert_close_losses,
    assert_resumes,
    assert_same_update,
    losses,
)
from touchstone.suite.reproducibility.tiny import tiny_pipeline

RECIPE = Recipe(epochs=2, batch_size=4, accumulation=2, learning_rate=2e-3, warmup_steps=2, weight_decay=0.01)
every_task = pytest.mark.parametrize("task", list(PIPELINES))
# One task for each kind of output layer: none over a vocabulary, tied to the embedding, untied in a decoder.
each_head = pytest.mark.parametrize(
    ("task", "untied"), [("token-classification", False), ("masked-lm", False), ("summarization", True)]
)


@pytest.fixture(autouse=True)
def large_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every embedding of these small models large, and losses computed in several slices."""
    monkeypatch.setattr(modules, "LARGE_TABLE", 1)
    monkeypatch.setattr(modules, "CACHED_ELEMENTS", 4096)


class Untied:
    """A source of models whose output layer is not tied to the embedding, like mT5's."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def model(self, auto_class: Any, **config: Any) -> Any:
        return self._source.model(auto_class, **config, tie_word_embeddings=False)


def pipeline(task: str, *, untied: bool = False, **how: Any) -> Pipeline:
    made = tiny_pipeline(task, **how)
    if untied:
        made.source = Untied(made.source)
    return made


def train(
    pipe: Pipeline, *, engine: Callable[..., TrainingRun] = packed.train, recipe: Recipe = RECIPE, **how: Any
) -> TrainingRun:
    report = how.pop("report", None)
    return engine(pipe, recipe=recipe, execution=Execution(**{"seed": 7} | how), report=report)


def lengths(pipe: Pipeline) -> set[int]:
    return set(FeatureRows(pipe.columns("train")).lengths.tolist())


# The same mathematics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "untied"),
    [*((task, False) for task in PIPELINES), ("masked-lm", True), ("summarization", True), ("causal-lm", True)],
)
def test_packed_has_the_losses_of_the_loop(task: str, untied: bool) -> None:
    pipe = pipeline(task, dropout=0.0)
    assert task == "masked-lm" or len(lengths(pipe)) > 1, "all rows have one length, so nothing is packed"
    recipe = RECIPE.model_copy(update={"batch_size": 3, "accumulation": 2, "epochs": 5})
    runs = [
        train(pipeline(task, untied=untied, dropout=0.0), engine=e, recipe=recipe) for e in (loop.train, packed.train)
    ]

    assert len(runs[0].trajectory) >= 20
    # Rounding errors grown over twenty steps. Rows that see each other, a lost label or a wrong position are off by at
    # least 1e-3.
    assert_close_losses(*runs, within=1e-5, what="loop and packed")
    assert [p.learning_rate for p in runs[0].trajectory] == [p.learning_rate for p in runs[1].trajectory]
    scores = [{score.name: score.value for score in run.evaluations[0].scores} for run in runs]
    # The untrained model's loss. Other scores may differ, where two logits are equal.
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], rel=1e-5)


@pytest.mark.parametrize("task", ["token-classification", "masked-lm", "causal-lm", "question-answering"])
def test_unpadded_predicts_what_the_padded_model_predicts(task: str) -> None:
    """Labels, hits and spans are equal, losses and scores up to rounding."""
    pipe = pipeline(task, dropout=0.0)
    rows = FeatureRows(pipe.columns("validation"))
    batch = pipe.collate([rows[0, row] for row in range(len(rows))], train=False)
    torch.manual_seed(0)
    plain = pipe.model().eval()
    with torch.inference_mode():
        expected = pipe.predict(plain, batch)
        got = pipe.predict(Unpadded(copy.deepcopy(plain)), batch)

    assert len(got) == len(rows)
    for one, other in zip(expected, got, strict=True):
        for name, value in one._asdict().items():
            if isinstance(value, np.ndarray):
                assert value.tolist() == getattr(other, name).tolist()
            else:  # sums of a few dozen float32 losses; integers are exact
                assert value == pytest.approx(getattr(other, name), rel=1e-5, abs=0 if isinstance(value, int) else 1e-5)


@each_head
def test_packed_updates_are_as_large_as_those_of_the_loop(task: str, untied: bool) -> None:
    """With a large epsilon Adam is nearly gradient descent, so a gradient that is wrong by a factor shows. Parameters
    without a gradient must not decay in either engine."""
    sensitive = {
        "epsilon": 1.0,
        "max_grad_norm": 1e6,
        "learning_rate": 0.1,
        "schedule": "constant",
        "weight_decay": 0.5,
    }
    recipe = RECIPE.model_copy(update=sensitive)
    runs = [
        train(pipeline(task, untied=untied, dropout=0.0), engine=e, recipe=recipe) for e in (loop.train, packed.train)
    ]

    # Rounding gives 1e-7 of the weights' norm, a gradient that is off by a tenth at least 1e-4.
    assert_same_update(runs, within=2e-6, what=["loop", "packed"])


@pytest.mark.parametrize("task", list(PIPELINES))
def test_packed_trains_every_parameter(task: str) -> None:
    """A parameter that no loss reaches would decay here, but not in the other engines."""
    seen: dict[str, PreTrainedModel] = {}
    pipe = pipeline(task, dropout=0.0)
    make = pipe.model
    pipe.model = lambda: seen.setdefault("model", make())  # type: ignore[method-assign]
    before: dict[str, torch.Tensor] = {}
    recipe = RECIPE.model_copy(update={"weight_decay": 0.0, "warmup_steps": 0})

    def save_weights_before_training(progress: Progress) -> None:
        if progress.phase == "evaluate" and not before:
            before.update({name: p.detach().clone() for name, p in seen["model"].named_parameters()})

    run = train(pipe, recipe=recipe, report=save_weights_before_training)

    assert run.model is not None
    unchanged = [name for name, p in run.model.named_parameters() if p.requires_grad and torch.equal(before[name], p)]
    assert unchanged == []


# Precisions -----------------------------------------------------------------------------------------------------------


@each_head
def test_packed_bf16_stays_close_to_fp32_and_leaves_a_float32_model(task: str, untied: bool, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 2})
    exact, mixed = (
        train(pipeline(task, untied=untied, dropout=0.0), recipe=recipe, precision=precision, save_dir=folder)
        for precision, folder in (("fp32", None), ("bf16", tmp_path))
    )

    assert losses(exact) != losses(mixed)
    # A rounding error is 2^-9 of a number, 0.2%. Of the dozen in a row that lead to a loss, a few do not cancel: 1%.
    # Losses begin near log(V), so a gradient that is missing or wrong by a factor is off by over 5% after these steps.
    np.testing.assert_allclose(losses(exact), losses(mixed), rtol=0.02)
    assert mixed.model is not None
    assert {p.dtype for p in mixed.model.parameters()} == {torch.float32}

    saved = load_file(
        sorted(tmp_path.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))[-1] / "model.safetensors"
    )
    assert {value.dtype for value in saved.values()} == {torch.float32}
    rounded = [
        name
        for name, value in saved.items()
        if value.count_nonzero() > 99 and torch.equal(value, value.bfloat16().float())
    ]
    assert rounded == [], "the checkpoint holds rounded weights"


def test_packed_refuses_fp16_and_names_the_alternatives() -> None:
    with pytest.raises(EngineError, match="'packed' does not support fp16; use fp32 or bf16, or another engine"):
        train(pipeline("token-classification"), precision="fp16")


def test_packed_stops_at_a_loss_that_is_not_finite_and_names_the_step() -> None:
    pipe = pipeline("token-classification")
    whole: Any = pipe.loss
    pipe.loss = lambda model, batch: whole(model, batch) * (float("nan") if torch.is_grad_enabled() else 1)  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="loss of step 1 is nan"):
        train(pipe)


# Dropout --------------------------------------------------------------------------------------------------------------


def draws(pipe: Pipeline, **how: Any) -> list[str]:
    """Return the start of every dropout mask that a run draws, as a string."""
    seen: list[str] = []

    class Watched(MaskSource):
        def draw(self, shape: torch.Size, **how: Any) -> torch.Tensor:
            mask = super().draw(shape, **how)
            seen.append(str((mask[..., :8] != 0).int().flatten().tolist()[:64]))
            return mask

    watched = Watched()
    with pytest.MonkeyPatch.context() as patch:
        for module in (packed, unpadded_module):
            patch.setattr(module, "DROPOUT_MASKS", watched)
        train(pipe, **how)
    return seen


def test_dropout_depends_only_on_seed_and_step() -> None:
    """Evaluation batches, the caller's generators and the learning rate do not matter."""
    recipe = RECIPE.model_copy(update={"accumulation": 1})
    first = draws(pipeline("token-classification"), recipe=recipe)
    torch.manual_seed(99)
    other = recipe.model_copy(update={"learning_rate": 1e-4, "weight_decay": 0.0})

    assert draws(pipeline("token-classification"), recipe=other, eval_batch_size=3) == first
    assert draws(pipeline("token-classification"), recipe=recipe, seed=8) != first
    steps = len(first) // 12  # 24 examples in batches of 4, twice
    assert len({tuple(first[i * steps : (i + 1) * steps]) for i in range(12)}) == 12, "two steps have the same masks"


@each_head
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_packed_run_equals_an_uninterrupted_one(
    task: str, untied: bool, precision: str, tmp_path: Path
) -> None:
    assert_resumes(lambda **how: train(pipeline(task, untied=untied), precision=precision, **how), save_dir=tmp_path)


# The trained model ----------------------------------------------------------------------------------------------------


# Marian has positions that are not trained; T5 uses one embedding in three modules.
@pytest.mark.parametrize("task", ["token-classification", "translation", "summarization"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_trained_model_and_its_checkpoint_have_the_plain_models_modules(
    task: str, precision: str, tmp_path: Path
) -> None:
    pipe = pipeline(task)
    plain = pipe.model()
    run = train(pipe, precision=precision, save_dir=tmp_path)
    model = run.model
    assert model is not None

    assert [(n, type(m)) for n, m in model.named_modules()] == [(n, type(m)) for n, m in plain.named_modules()]
    assert model.config._attn_implementation == plain.config._attn_implementation != NAME
    assert not any(isinstance(module, (Head, Lookup)) for module in model.modules())
    assert len({module.training for module in model.modules()}) == 1

    last = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    plain.save_pretrained(tmp_path / "plain")
    assert load_file(tmp_path / "plain" / "model.safetensors").keys() == load_file(last / "model.safetensors").keys()
    assert NAME not in (last / "config.json").read_text()
    again, info = type(plain).from_pretrained(last, output_loading_info=True)
    assert [set(info[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")] == [set()] * 3
    expected, got = dict(model.named_parameters()), dict(again.named_parameters())
    for name, value in expected.items():
        assert torch.equal(value, got[name]), f"{name} differs in the checkpoint"


# Models that cannot be packed -----------------------------------------------------------------------------------------


def test_packed_refuses_a_model_whose_positions_it_cannot_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its positions would continue from one row to the next."""
    monkeypatch.setattr(Unpadded, "_pack_positions", lambda self: setattr(self, "_first_position", None))
    with pytest.raises(
        EngineError, match=r"BertForTokenClassification has a loss of \S+ without padding .* cannot be packed"
    ):
        train(pipeline("token-classification"))


@pytest.mark.parametrize("function", ["attend_train", "attend_eval"])
def test_packed_refuses_attention_that_changes_the_loss_in_training_or_evaluation(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct = getattr(attention, function)
    monkeypatch.setattr(attention, function, lambda *given: correct(*given) * 1.5)
    with pytest.raises(EngineError, match="cannot be packed"):
        train(pipeline("token-classification"))


def test_packed_refuses_a_model_without_pluggable_attention() -> None:
    from transformers import AutoModelForTokenClassification, DebertaV2Config

    pipe = pipeline("token-classification")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = DebertaV2Config(vocab_size=2000, num_labels=9, **sizes)
    pipe.model = lambda: AutoModelForTokenClassification.from_config(config)  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="DebertaV2ForTokenClassification does not support other attention"):
        train(pipe)
