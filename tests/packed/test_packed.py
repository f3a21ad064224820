"""The packed engine as a whole: the losses of the loop, in every kind of table and head, and what it draws."""

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
from touchstone.packed import attention
from touchstone.packed import engine as packed
from touchstone.packed import head as head_module
from touchstone.packed import lookup as lookup_module
from touchstone.packed import unpadded as unpadded_module
from touchstone.packed.attention import NAME
from touchstone.packed.dropout import MaskSource
from touchstone.packed.head import Head
from touchstone.packed.lookup import Lookup
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
# One task a kind of head: none over a vocabulary, tied to the table, a decoder's own.
kinds = pytest.mark.parametrize(
    ("task", "untied"), [("token-classification", False), ("masked-lm", False), ("summarization", True)]
)


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """In these small models every table is a large one, and losses are computed in several slices."""
    monkeypatch.setattr(lookup_module, "LARGE", 1)
    monkeypatch.setattr(head_module, "CACHED", 4096)


class Untied:
    """A source whose models have a head of their own, as mT5 has."""

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
def test_losses_are_those_of_the_loop(task: str, untied: bool) -> None:
    pipe = pipeline(task, dropout=0.0)
    assert task == "masked-lm" or len(lengths(pipe)) > 1, "rows of one length have nothing to pack"
    recipe = RECIPE.model_copy(update={"batch_size": 3, "accumulation": 2, "epochs": 5})
    runs = [
        train(pipeline(task, untied=untied, dropout=0.0), engine=e, recipe=recipe) for e in (loop.train, packed.train)
    ]

    assert len(runs[0].trajectory) >= 20
    # Rounding, grown over twenty steps; a row that sees another, a lost label or a wrong place is off by 1e-3 and more.
    assert_close_losses(*runs, within=1e-5, what="with padding, and without")
    assert [p.learning_rate for p in runs[0].trajectory] == [p.learning_rate for p in runs[1].trajectory]
    scores = [{score.name: score.value for score in run.evaluations[0].scores} for run in runs]
    # The same model evaluated; two equal logits may change places.
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], rel=1e-5)


@pytest.mark.parametrize("task", ["token-classification", "masked-lm", "causal-lm", "question-answering"])
def test_predictions_are_those_of_the_padded_model(task: str) -> None:
    """All but what is written: labels, hits and spans the same, losses and scores but for rounding."""
    pipe = pipeline(task, dropout=0.0)
    rows = FeatureRows(pipe.columns("validation"))
    batch = pipe.collate([rows[0, row] for row in range(len(rows))], train=False)
    torch.manual_seed(0)
    plain = pipe.model().eval()
    with torch.inference_mode():
        expected = pipe.predict(plain, batch)
        got = pipe.predict(Unpadded(copy.deepcopy(plain)), batch)

    assert len(rows) == len(got)
    for one, other in zip(expected, got, strict=True):
        for name, value in one._asdict().items():
            if isinstance(value, np.ndarray):
                assert value.tolist() == getattr(other, name).tolist()
            else:  # sums of a few dozen losses in float32; counts and places are whole numbers, and exact
                assert value == pytest.approx(getattr(other, name), rel=1e-5, abs=0 if isinstance(value, int) else 1e-5)


@kinds
def test_an_update_has_the_size_of_the_loops(task: str, untied: bool) -> None:
    """Adam with so large an epsilon is nearly gradient descent: it does not hide a gradient that is too large by a
    factor. What has no gradient decays in neither."""
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

    # Rounding gives 1e-7 of the weights' norm; a gradient that is off by a tenth 1e-4 and more.
    assert_same_update(runs, within=2e-6, what=["loop", "packed"])


@pytest.mark.parametrize("task", list(PIPELINES))
def test_every_parameter_learns(task: str) -> None:
    """What no loss reaches would decay here and nowhere else."""
    seen: dict[str, PreTrainedModel] = {}
    pipe = pipeline(task, dropout=0.0)
    make = pipe.model
    pipe.model = lambda: seen.setdefault("model", make())  # type: ignore[method-assign]
    before: dict[str, torch.Tensor] = {}
    recipe = RECIPE.model_copy(update={"weight_decay": 0.0, "warmup_steps": 0})

    def remember(progress: Progress) -> None:
        if progress.phase == "evaluate" and not before:
            before.update({name: p.detach().clone() for name, p in seen["model"].named_parameters()})

    run = train(pipe, recipe=recipe, report=remember)

    assert run.model is not None
    still = [name for name, p in run.model.named_parameters() if p.requires_grad and torch.equal(before[name], p)]
    assert still == []


# Precisions -----------------------------------------------------------------------------------------------------------


@kinds
def test_bf16_stays_close_and_leaves_a_float32_model(task: str, untied: bool, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"epochs": 2})
    exact, mixed = (
        train(pipeline(task, untied=untied, dropout=0.0), recipe=recipe, precision=precision, save_dir=folder)
        for precision, folder in (("fp32", None), ("bf16", tmp_path))
    )

    assert losses(exact) != losses(mixed)
    # A rounding is 2^-9 of a number, 0.2%; of the dozen in a row that lead to a loss a few do not cancel: 1%. Losses
    # begin near log(V): what is wrong by a factor, or not learnt, is off by more than 5% after these steps.
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
    assert rounded == [], "a checkpoint of rounded weights"


def test_fp16_is_refused_and_says_what_to_take() -> None:
    with pytest.raises(EngineError, match="engine 'packed' does not support fp16: use fp32 or bf16, or another engine"):
        train(pipeline("token-classification"), precision="fp16")


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step() -> None:
    pipe = pipeline("token-classification")
    whole: Any = pipe.loss
    pipe.loss = lambda model, batch: whole(model, batch) * (float("nan") if torch.is_grad_enabled() else 1)  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="loss of step 1 is nan"):
        train(pipe)


# Draws ----------------------------------------------------------------------------------------------------------------


def draws(pipe: Pipeline, **how: Any) -> list[str]:
    """What dropout leaves of ones, in every call of a run, by place and step."""
    seen: list[str] = []

    class Watched(MaskSource):
        def draw(self, shape: torch.Size, **how: Any) -> torch.Tensor:
            mask = super().draw(shape, **how)
            seen.append(str((mask[..., :8] != 0).int().flatten().tolist()[:64]))
            return mask

    watched = Watched()
    with pytest.MonkeyPatch.context() as patch:
        for module in (packed, unpadded_module):
            patch.setattr(module, "MASKS", watched)
        train(pipe, **how)
    return seen


def test_what_is_dropped_depends_on_seed_and_step_alone() -> None:
    """Not on evaluations, on the caller's generators or on the learning rate."""
    recipe = RECIPE.model_copy(update={"accumulation": 1})
    first = draws(pipeline("token-classification"), recipe=recipe)
    torch.manual_seed(99)
    other = recipe.model_copy(update={"learning_rate": 1e-4, "weight_decay": 0.0})

    assert draws(pipeline("token-classification"), recipe=other, eval_batch_size=3) == first
    assert draws(pipeline("token-classification"), recipe=recipe, seed=8) != first
    steps = len(first) // 12  # of 24 examples by 4, twice
    assert len({tuple(first[i * steps : (i + 1) * steps]) for i in range(12)}) == 12, "two steps drop the same"


@kinds
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_equals_the_uninterrupted_one(task: str, untied: bool, precision: str, tmp_path: Path) -> None:
    assert_resumes(lambda **how: train(pipeline(task, untied=untied), precision=precision, **how), save_dir=tmp_path)


# What is left ---------------------------------------------------------------------------------------------------------


# Marian has positions that do not learn; T5 has a table in three modules.
@pytest.mark.parametrize("task", ["token-classification", "translation", "summarization"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_trained_model_is_the_plain_one_and_so_is_its_checkpoint(task: str, precision: str, tmp_path: Path) -> None:
    pipe = pipeline(task)
    plain = pipe.model()
    run = train(pipe, precision=precision, save_dir=tmp_path)
    model = run.model
    assert model is not None

    assert [(n, type(m)) for n, m in plain.named_modules()] == [(n, type(m)) for n, m in model.named_modules()]
    assert plain.config._attn_implementation == model.config._attn_implementation != NAME
    assert not any(isinstance(module, (Head, Lookup)) for module in model.modules())
    assert len({module.training for module in model.modules()}) == 1

    last = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    plain.save_pretrained(tmp_path / "plain")
    assert load_file(tmp_path / "plain" / "model.safetensors").keys() == load_file(last / "model.safetensors").keys()
    assert NAME not in (last / "config.json").read_text()
    again, told = type(plain).from_pretrained(last, output_loading_info=True)
    assert tuple(set(told[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")) == (
        set(),
        set(),
        set(),
    )
    expected, got = dict(model.named_parameters()), dict(again.named_parameters())
    for name, value in expected.items():
        assert torch.equal(value, got[name]), f"{name} of the checkpoint is not the trained one"


def test_a_model_with_positions_that_nobody_packs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would go on counting from one row to the next."""
    monkeypatch.setattr(Unpadded, "_pack_positions", lambda self: setattr(self, "_first_position", None))
    with pytest.raises(
        EngineError, match=r"BertForTokenClassification has a loss of \S+ without padding .* cannot be packed"
    ):
        train(pipeline("token-classification"))


@pytest.mark.parametrize("path", ["training", "evaluation"])
def test_arithmetic_that_changes_the_loss_is_refused_in_training_and_in_evaluation(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"training": "attend", "evaluation": "look"}[path]
    right = getattr(attention, name)
    monkeypatch.setattr(attention, name, lambda *given: right(*given) * 1.5)
    with pytest.raises(EngineError, match="cannot be packed"):
        train(pipeline("token-classification"))


def test_a_model_with_attention_of_its_own_is_refused() -> None:
    from transformers import AutoModelForTokenClassification, DebertaV2Config

    pipe = pipeline("token-classification")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = DebertaV2Config(vocab_size=2000, num_labels=9, **sizes)
    pipe.model = lambda: AutoModelForTokenClassification.from_config(config)  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="DebertaV2ForTokenClassification has attention of its own"):
        train(pipe)
