"""The engines: equal mathematics, evaluation, timing, checkpoints, devices and progress."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForTokenClassification, Trainer, TrainingArguments, set_seed

from tests.support.tiny_source import TinySource
from touchstone.engines import engine_names, load_engine
from touchstone.engines.checkpoint import checkpoints
from touchstone.engines.device import resolve_device
from touchstone.engines.engine import Train
from touchstone.engines.evaluation import predict_share, score_shares
from touchstone.engines.order import EpochOrder
from touchstone.engines.progress import REPORTS_PER_SECOND, Clock, StepTimer
from touchstone.engines.session import parameter_groups
from touchstone.engines.training import EngineError, Execution, Progress, Recipe, TrainingRun
from touchstone.pipelines import PIPELINES, Pipeline, TokenClassification
from touchstone.pipelines.pipeline import Batch, FeatureRows
from touchstone.suite.reproducibility.comparing import (
    Interrupted,
    assert_close_losses,
    assert_same_bits,
    assert_same_update,
    interrupt_after,
    losses,
    weights,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "token-classification": {"max_length": 64},
    "masked-lm": {"chunk_length": 16, "probe": "ada likes [MASK] ."},
    "question-answering": {"max_length": 24, "stride": 4},
}
CPU = torch.device("cpu")
NAMES = engine_names()

every_engine = pytest.mark.parametrize("engine", [load_engine(name).train for name in NAMES], ids=NAMES)
every_task = pytest.mark.parametrize("task", OPTIONS)


def pipeline(task: str = "token-classification", *, source: TinySource | None = None, **options: Any) -> Pipeline:
    kind = PIPELINES[task]
    return kind(source or TinySource(), options=kind.Options(**OPTIONS[task] | options), seed=3)


def recipe(**values: Any) -> Recipe:
    return Recipe(**{"epochs": 2, "batch_size": 4, "learning_rate": 3e-3, "weight_decay": 0.01} | values)


# The result of a run ------------------------------------------------------------------------------------------------


@every_engine
@every_task
def test_a_run_has_everything_a_record_needs(engine: Train, task: str) -> None:
    pipe = pipeline(task)
    run = engine(pipe, recipe=recipe(epochs=2, batch_size=4, accumulation=3), execution=Execution(seed=0))
    n = len(FeatureRows(pipe.columns("train")))
    steps = 2 * math.ceil(math.ceil(n / 4) / 3)

    assert list(range(1, steps + 1)) == [point.step for point in run.trajectory]
    assert run.trajectory[-1].samples == 2 * n
    assert 2 * len(pipe.columns("train")["input_ids"].values) == run.tokens == run.trajectory[-1].tokens
    assert run.tokens <= run.padded_tokens
    assert len(run.step_seconds) == steps
    assert run.trajectory[-1].seconds == pytest.approx(sum(run.step_seconds))
    assert [(e.epoch, e.step) for e in run.evaluations] == [(0.0, 0), (1.0, steps // 2), (2.0, steps)]
    assert set(run.phases) == {"prepare", "model", "train", "evaluate", "save"}
    assert run.peak_host_bytes > 10**8  # torch alone is more
    assert run.peak_device_bytes is None
    assert run.model is not None
    assert sum(p.numel() for p in run.model.parameters()) == run.parameters
    assert set(run.sample_outputs) == {"before", "after"}
    assert run.trajectory[-1].learning_rate - 3e-3 * (1 / steps) == 0.0  # linear: the last step takes the last share


@every_engine
@every_task
def test_training_lowers_the_loss(engine: Train, task: str) -> None:
    run = engine(pipeline(task), recipe=recipe(epochs=4), execution=Execution(seed=0))
    before, after = ({s.name: s for s in e.scores}["loss"].value for e in (run.evaluations[0], run.evaluations[-1]))

    assert after < before - 0.1


@every_engine
def test_a_fraction_of_an_epoch_ends_with_an_evaluation(engine: Train) -> None:
    run = engine(pipeline(), recipe=recipe(epochs=1.5), execution=Execution(seed=0))

    assert len(run.trajectory) == 15
    assert [e.epoch for e in run.evaluations] == [0.0, 1.0, 1.5]


# The same mathematics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@every_task
def test_engines_give_the_same_losses_without_dropout(task: str, schedule: str) -> None:
    settings = recipe(epochs=3, batch_size=2, accumulation=2, warmup_steps=3, schedule=schedule)
    first, *others = (
        train(pipeline(task, source=TinySource(dropout=0.0)), recipe=settings, execution=Execution(seed=1))
        for train in (load_engine(name).train for name in engine_names())
    )

    assert len(first.trajectory) >= 20
    for other in others:
        assert [p.learning_rate for p in first.trajectory] == [p.learning_rate for p in other.trajectory]
        # Rounding of float32 sums, grown over the steps; a wrong mean or schedule is off by 1e-2 and more.
        np.testing.assert_allclose(losses(first), losses(other), atol=1e-5)


def test_engines_decay_the_same_parameters() -> None:
    set_seed(0)
    model = pipeline().model()
    trainer = Trainer(
        model=model, args=TrainingArguments(output_dir="unused", use_cpu=True, save_strategy="no", report_to="none")
    )
    decayed = set(trainer.get_decay_parameter_names(model))
    names = {parameter: name for name, parameter in model.named_parameters()}

    assert {names[parameter] for parameter in parameter_groups(model, recipe())[0]["params"]} == decayed


def ragged() -> TinySource:
    """Eight sentences of 4 to 15 words: batches of very different numbers of labels."""
    return TinySource(train=8, dropout=0.0)


# Adam with so large an epsilon is nearly gradient descent: it does not hide a gradient that is too large by a factor.
SCALE_SENSITIVE = {"epsilon": 1.0, "max_grad_norm": 1e6, "learning_rate": 0.1, "schedule": "constant"}


def cut_runs(engine: Train, make: Callable[[], Pipeline]) -> list[TrainingRun]:
    return [
        engine(
            make(),
            recipe=recipe(epochs=3, batch_size=size, accumulation=accumulation, **SCALE_SENSITIVE),
            execution=Execution(seed=0),
        )
        for size, accumulation in ((8, 1), (4, 2), (1, 8))
    ]


@every_engine
@every_task
def test_an_update_does_not_depend_on_the_micro_batches(engine: Train, task: str) -> None:
    options = {"chunk_length": 9, "tail": "keep"} if task == "masked-lm" else {}
    runs = cut_runs(engine, lambda: pipeline(task, source=ragged(), **options))

    assert_same_update(runs, within=1e-6, what=["8x1", "4x2", "1x8"])  # rounding: 1e-8
    for other in runs[1:]:
        assert_close_losses(runs[0], other, within=1e-5, what="other micro-batches")


class MeanLoss(TokenClassification):
    """A pipeline whose loss is the mean of a micro-batch, as in the heads of transformers."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return super().loss(model, batch) / batch["size"].items


@every_engine
def test_assert_same_update_catches_means_of_micro_batches(engine: Train) -> None:
    runs = cut_runs(engine, lambda: MeanLoss(ragged(), options=MeanLoss.Options(max_length=64), seed=3))

    with pytest.raises(AssertionError, match="4x2 ended with other weights than 8x1"):
        assert_same_update(runs, within=1e-6, what=["8x1", "4x2", "1x8"])
    with pytest.raises(AssertionError, match="the loss of step 1 was"):
        assert_close_losses(runs[0], runs[2], within=1e-5, what="cut")


class Plain(Trainer):
    """An unchanged transformers.Trainer that records its gradients before the optimizer step."""

    gradients: dict[str, torch.Tensor]

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        self.gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return super()._clip_grad_norm(model)


def plain_gradients(pipe: Pipeline, path: Path, *, size: int, accumulation: int) -> dict[str, torch.Tensor]:
    rows = FeatureRows(pipe.columns("train"))
    set_seed(0)
    trainer = Plain(
        model=pipe.model(),
        args=TrainingArguments(
            output_dir=str(path),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            log_level="error",
            remove_unused_columns=False,
        ),
        train_dataset=[rows[0, i] for i in range(len(rows))],  # type: ignore[arg-type]
        data_collator=lambda features: {
            name: tensor for name, tensor in pipe.collate(features, train=True).items() if name != "size"
        },
    )
    trainer.train()
    return trainer.gradients


def norm(gradients: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([gradient.norm() for gradient in gradients.values()]).norm())


def test_plain_trainer_sums_micro_batch_means_and_the_engines_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """If this fails, https://github.com/huggingface/transformers/issues/47688 is fixed, and our correction can go."""
    equal = TinySource(train=0, dropout=0.0)
    monkeypatch.setattr(
        "tests.support.tiny_source.sentences", lambda n, offset=0: ([["ada", "sees", "oslo"]] * 8, [[1, 0, 3]] * 8)
    )
    pipe = pipeline(source=equal)
    whole = plain_gradients(pipe, tmp_path, size=8, accumulation=1)
    cut = plain_gradients(pipe, tmp_path, size=1, accumulation=8)

    # With eight equal sentences, all ways to average give the same, but a sum does not.
    assert norm(cut) / norm(whole) == pytest.approx(8.0, rel=1e-4)

    seen: list[float] = []
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(
        torch.nn.utils,
        "clip_grad_norm_",
        lambda *args, **kwargs: seen.append((out := clip(*args, **kwargs)).item()) or out,
    )
    for train in (load_engine(name).train for name in engine_names()):
        for size, accumulation in ((8, 1), (1, 8)):
            settings = recipe(epochs=1, batch_size=size, accumulation=accumulation)
            train(pipe, recipe=settings, execution=Execution(seed=0))
    assert seen == [pytest.approx(norm(whole), rel=1e-4)] * 4


# Reproducibility ------------------------------------------------------------------------------------------------------


@every_engine
@every_task
def test_the_same_seed_gives_the_same_bits(engine: Train, task: str) -> None:
    first, second = (engine(pipeline(task), recipe=recipe(), execution=Execution(seed=7)) for _ in range(2))

    assert_same_bits(first, second)


@every_engine
def test_another_seed_gives_another_run(engine: Train) -> None:
    first, second = (engine(pipeline(), recipe=recipe(), execution=Execution(seed=seed)) for seed in (7, 8))

    assert losses(first) != losses(second)


@every_engine
def test_a_run_does_not_depend_on_the_callers_generators(engine: Train) -> None:
    first = engine(pipeline(), recipe=recipe(), execution=Execution(seed=7))
    torch.manual_seed(123)
    np.random.seed(5)
    pipe = pipeline()
    list(torch.utils.data.DataLoader(range(3)))  # type: ignore[arg-type]
    second = engine(pipe, recipe=recipe(), execution=Execution(seed=7))

    assert_same_bits(first, second)


@every_engine
def test_a_run_that_stops_early_equals_the_start_of_the_whole_run(engine: Train) -> None:
    settings = recipe(schedule="cosine", warmup_steps=3)
    whole = engine(pipeline(), recipe=settings, execution=Execution(seed=7))
    for steps in (4, 13):  # within the first epoch of 10 steps, and within the second
        stopped = engine(
            pipeline(), recipe=settings.model_copy(update={"stop_after": steps}), execution=Execution(seed=7)
        )

        assert losses(whole)[:steps] == losses(stopped)
        rates = [[point.learning_rate for point in run.trajectory] for run in (whole, stopped)]
        assert rates[0][:steps] == rates[1], "the schedule is that of the whole run"
        assert stopped.evaluations[-1].step == steps
        assert stopped.sample_outputs.keys() == {"before", "after"}
    longer = engine(pipeline(), recipe=settings.model_copy(update={"stop_after": 99}), execution=Execution(seed=7))
    assert_same_bits(whole, longer)


@every_engine
def test_workers_change_nothing(engine: Train, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = (
        engine(pipeline("masked-lm"), recipe=recipe(), execution=Execution(seed=7, workers=workers))
        for workers in (0, 2)
    )

    assert_same_bits(first, second)
    assert capfd.readouterr() == ("", "")


def test_epoch_order_depends_on_seed_and_epoch() -> None:
    order = EpochOrder(50, seed=1)
    orders = [order.permutation(epoch).tolist() for epoch in range(3)]

    assert all(sorted(permutation) == list(range(50)) for permutation in orders)
    assert len({tuple(permutation) for permutation in orders}) == 3
    assert EpochOrder(50, seed=1).permutation(2).tolist() == orders[2]
    assert EpochOrder(50, seed=2).permutation(0).tolist() != orders[0]


def test_epoch_order_is_the_same_on_every_platform_and_version() -> None:
    # PCG64's raw stream never changes (NEP 19). If this value does, records can no longer be compared.
    assert EpochOrder(8, seed=42).permutation(0).tolist() == [4, 1, 3, 6, 0, 7, 2, 5]


def test_epoch_order_puts_every_example_at_every_position_equally_often() -> None:
    counts = np.zeros((5, 5))
    for epoch in range(2000):
        counts[np.arange(5), EpochOrder(5, seed=0).permutation(epoch)] += 1

    # Each cell is binomial(2000, 1/5): sd 17.9. Six of them: false alarm 25 x 2e-9.
    assert np.abs(counts - 400).max() < 6 * 17.9


# Evaluation -----------------------------------------------------------------------------------------------------------


@every_task
def test_every_example_counts_once_for_any_batch_size_and_world(task: str) -> None:
    pipe = pipeline(task)
    set_seed(0)
    model = pipe.model()
    expected = {
        s.name: s.value for s in score_shares(pipe, [predict_share(pipe, model=model, device=CPU, batch_size=1)])
    }

    for batch_size in (2, 3, 5, 64):
        for world in (1, 2, 3, 4):
            shares = [
                predict_share(pipe, model=model, device=CPU, batch_size=batch_size, rank=rank, world=world)
                for rank in range(world)
            ]
            got = {s.name: s.value for s in score_shares(pipe, shares)}
            # Labels are counted, losses are float32 sums over rows padded to other widths.
            assert got == pytest.approx(expected, rel=1e-5)


def test_predict_share_is_empty_if_there_are_more_processes_than_examples() -> None:
    pipe = pipeline(source=TinySource(validation=2))
    model = pipe.model()
    shares = [predict_share(pipe, model=model, device=CPU, batch_size=4, rank=rank, world=5) for rank in range(5)]

    assert [len(share) for share in shares] == [1, 1, 0, 0, 0]
    assert score_shares(pipe, shares)


def test_score_shares_refuses_missing_and_duplicated_examples() -> None:
    pipe = pipeline()
    share = predict_share(pipe, model=pipe.model(), device=CPU, batch_size=4)
    with pytest.raises(ValueError, match="example 0 of validation was predicted twice"):
        score_shares(pipe, [share, share])
    del share[3]
    with pytest.raises(ValueError, match=r"example 3 of validation was not predicted \(1 of 13"):
        score_shares(pipe, [share])


def test_predict_share_changes_neither_mode_nor_generators() -> None:
    pipe = pipeline()
    model = pipe.model().train()
    state = torch.get_rng_state()
    predict_share(pipe, model=model, device=CPU, batch_size=4)

    assert model.training
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluate_predicts_as_the_session_does_and_keeps_the_model(name: str, precision: Any) -> None:
    pipe = pipeline("masked-lm")
    engine, execution = load_engine(name), Execution(seed=0, precision=precision, eval_batch_size=4)
    run = engine.train(pipe, recipe=recipe(epochs=1), execution=execution)
    before = weights(run)
    assert run.model is not None
    scores = pipe.score(engine.evaluate(pipe, run.model, execution=execution))

    for score, expected in zip(scores, run.evaluations[-1].scores, strict=True):
        assert (score.name, score.n) == (expected.name, expected.n)
        assert score.value == pytest.approx(expected.value, rel=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in weights(run).items())


# The clock ------------------------------------------------------------------------------------------------------------


def test_an_inner_phase_pauses_the_outer_one() -> None:
    clock = Clock()
    with clock.phase("train"):
        time.sleep(0.02)
        with clock.phase("evaluate"):
            time.sleep(0.2)
        time.sleep(0.02)

    assert 0.04 <= clock.seconds["train"] < 0.2 <= clock.seconds["evaluate"]


def test_step_timer_measures_from_mark_to_mark() -> None:
    timer = StepTimer(CPU)
    timer.start()
    for seconds in (0.01, 0.05):
        time.sleep(seconds)
        timer.mark()
    first, second = timer.collect()

    assert 0.01 <= first < 0.05 <= second
    assert timer.collect() == []


@every_engine
def test_the_training_clock_pauses_during_evaluation_and_saving(
    engine: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            time.sleep(0.3)
            return function(*args, **kwargs)

        return wrapped

    monkeypatch.setattr("touchstone.engines.session.score_shares", slow(score_shares))
    monkeypatch.setattr(torch, "save", slow(torch.save))
    run = engine(pipeline(), recipe=recipe(), execution=Execution(seed=0, save_dir=tmp_path))

    # 20 steps of 3 ms against 5 pauses of at least 0.3 s.
    assert run.phases["train"] < 0.9
    assert run.trajectory[-1].seconds <= run.phases["train"]
    assert run.phases["evaluate"] >= 0.9
    assert run.phases["save"] >= 0.6


# Checkpoints ----------------------------------------------------------------------------------------------------------


@every_engine
@every_task
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_equals_the_uninterrupted_one(engine: Train, task: str, precision: Any, tmp_path: Path) -> None:
    settings = recipe(epochs=3, accumulation=2, warmup_steps=2)
    whole = engine(pipeline(task), recipe=settings, execution=Execution(seed=5, precision=precision))
    execution = Execution(seed=5, precision=precision, save_dir=tmp_path, resume=True)
    with pytest.raises(Interrupted):
        engine(pipeline(task), recipe=settings, execution=execution, report=interrupt_after(1))
    assert len(checkpoints(tmp_path)) == 1
    resumed = engine(pipeline(task), recipe=settings, execution=execution)

    assert_same_bits(whole, resumed)
    assert [p.samples for p in whole.trajectory] == [p.samples for p in resumed.trajectory]
    assert (whole.tokens, whole.padded_tokens) == (resumed.tokens, resumed.padded_tokens)
    assert 0 < whole.items == resumed.items
    assert whole.sample_outputs == resumed.sample_outputs
    assert len(whole.step_seconds) == len(resumed.step_seconds)


@every_engine
@pytest.mark.parametrize("epochs", [1, 0.5])
def test_resuming_a_finished_run_returns_it(engine: Train, epochs: float, tmp_path: Path) -> None:
    execution = Execution(seed=5, save_dir=tmp_path, resume=True)
    first = engine(pipeline("masked-lm"), recipe=recipe(epochs=epochs), execution=execution)
    again = engine(pipeline("masked-lm"), recipe=recipe(epochs=epochs), execution=execution)

    assert_same_bits(first, again)
    assert first.trajectory == again.trajectory
    assert first.sample_outputs == again.sample_outputs


@every_engine
def test_a_checkpoint_loads_as_a_model_and_has_no_unsafe_pickle(engine: Train, tmp_path: Path) -> None:
    run = engine(pipeline(), recipe=recipe(epochs=1), execution=Execution(seed=5, save_dir=tmp_path))
    [(step, path)] = checkpoints(tmp_path)
    loaded = BertForTokenClassification.from_pretrained(path)

    assert len(run.trajectory) == step
    assert all(torch.equal(value, weights(run)[name]) for name, value in loaded.state_dict().items())
    files = {file.name for file in path.iterdir()}
    assert files >= {"model.safetensors", "config.json", "tokenizer.json", "run.json"}
    for file in path.glob("*.p[tk]*"):
        torch.load(file, weights_only=True) if file.name != "rng_state.pth" else None
    assert "training_args.bin" not in files


@every_engine
def test_resuming_ignores_an_interrupted_save(engine: Train, tmp_path: Path) -> None:
    settings = recipe(epochs=2)
    execution = Execution(seed=5, save_dir=tmp_path, resume=True)
    whole = engine(pipeline(), recipe=settings, execution=execution)
    newest = checkpoints(tmp_path)[-1][1]
    (newest / "run.json").unlink()
    (newest / "model.safetensors").write_bytes(b"half a fi")
    resumed = engine(pipeline(), recipe=settings, execution=execution)

    assert_same_bits(whole, resumed)


@every_engine
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": {"batch_size": 8}}, "batch_size 4, this one has 8"),
        ({"seed": 6}, "seed 5, this one has 6"),
        ({"options": {"strategy": "first"}}, "options"),
        ({"source": TinySource(train=41)}, "data"),
    ],
)
def test_resuming_another_run_is_refused(engine: Train, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    engine(pipeline(), recipe=recipe(epochs=1), execution=Execution(seed=5, save_dir=tmp_path))
    other = pipeline(source=change.get("source"), **change.get("options", {}))
    settings = recipe(**{"epochs": 1} | change.get("recipe", {}))
    with pytest.raises(EngineError, match=message):
        engine(other, recipe=settings, execution=Execution(seed=change.get("seed", 5), save_dir=tmp_path, resume=True))


@every_engine
def test_a_directory_with_checkpoints_is_not_overwritten(engine: Train, tmp_path: Path) -> None:
    execution = Execution(seed=5, save_dir=tmp_path)
    engine(pipeline(), recipe=recipe(epochs=1), execution=execution)
    with pytest.raises(EngineError, match="exists already"):
        engine(pipeline(), recipe=recipe(epochs=1), execution=execution)


@every_engine
@pytest.mark.parametrize("name", ["run.json", "model.safetensors", "optimizer.pt"])
def test_the_error_for_a_broken_checkpoint_names_the_file(engine: Train, name: str, tmp_path: Path) -> None:
    settings = recipe(epochs=2)
    execution = Execution(seed=5, save_dir=tmp_path, resume=True)
    with pytest.raises(Interrupted):
        engine(pipeline(), recipe=settings, execution=execution, report=interrupt_after(1))
    (checkpoints(tmp_path)[-1][1] / name).write_bytes(b"broken")
    with pytest.raises(EngineError, match=name):
        engine(pipeline(), recipe=settings, execution=execution)


def test_resume_without_save_dir_is_refused() -> None:
    with pytest.raises(EngineError, match="save_dir"):
        load_engine("loop").train(pipeline(), recipe=recipe(), execution=Execution(seed=0, resume=True))


# Devices, precisions, divergence --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        ("gpu", "fp32", "not one of cpu, cuda"),
        ("cuda:x", "fp32", "not one of cpu, cuda"),
        ("cpu:1", "fp32", "not one of cpu, cuda"),
        ("cpu", "fp16", "fp16 needs a CUDA device"),
        ("cuda:99", "fp32", "no CUDA device|the last is"),
    ],
)
def test_resolve_device_refuses_what_the_device_cannot_do(name: str, precision: Any, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        resolve_device(name, precision=precision)


@every_engine
def test_bf16_changes_losses_a_little_and_leaves_a_float32_model(engine: Train) -> None:
    exact, mixed = (
        engine(pipeline(), recipe=recipe(), execution=Execution(seed=0, precision=p)) for p in ("fp32", "bf16")
    )

    assert losses(exact) != losses(mixed)
    np.testing.assert_allclose(losses(exact), losses(mixed), rtol=0.05)  # 8 bits of mantissa: 0.4% an operation
    assert mixed.model is not None
    assert {parameter.dtype for parameter in mixed.model.parameters()} == {torch.float32}
    batch = pipeline().collate([FeatureRows(pipeline().columns("train"))[0, 0]], train=False)
    logits = mixed.model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    again = BertForTokenClassification(mixed.model.config).eval()
    again.load_state_dict(mixed.model.state_dict())
    assert torch.equal(again(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits, logits)


class Poisoned(TokenClassification):
    """A pipeline whose loss is not a number."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return super().loss(model, batch) * math.nan


@every_engine
def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(engine: Train) -> None:
    broken = Poisoned(TinySource(), options=Poisoned.Options(max_length=64), seed=0)
    with pytest.raises(EngineError, match="loss of step 1 is nan"):
        engine(broken, recipe=recipe(), execution=Execution(seed=0))


@every_engine
def test_a_step_without_labels_has_a_loss_of_zero(engine: Train) -> None:
    run = engine(pipeline("masked-lm", rate=0.02), recipe=recipe(batch_size=1, epochs=1), execution=Execution(seed=0))

    assert 0.0 in losses(run)
    assert all(map(math.isfinite, losses(run)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_engine
@every_task
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_cuda_runs_are_reproducible_and_resume(engine: Train, task: str, precision: Any, tmp_path: Path) -> None:
    if (engine, precision) == (load_engine("packed").train, "fp16"):
        pytest.skip("packed does not support fp16")
    execution = Execution(seed=5, device="cuda", precision=precision, save_dir=tmp_path, resume=True)
    whole = engine(pipeline(task), recipe=recipe(), execution=Execution(seed=5, device="cuda", precision=precision))
    with pytest.raises(Interrupted):
        engine(pipeline(task), recipe=recipe(), execution=execution, report=interrupt_after(1))
    resumed = engine(pipeline(task), recipe=recipe(), execution=execution)

    assert_same_bits(whole, resumed)
    assert whole.peak_device_bytes is not None
    assert whole.peak_device_bytes > 4 * whole.parameters
    assert all(seconds > 0 for seconds in whole.step_seconds)


# Progress -------------------------------------------------------------------------------------------------------------


@every_engine
def test_progress_is_ordered_and_limited_in_rate(engine: Train, tmp_path: Path) -> None:
    seen: list[tuple[float, Progress]] = []
    engine(
        pipeline(source=TinySource(train=1000)),
        recipe=recipe(),
        execution=Execution(seed=0, save_dir=tmp_path),
        report=lambda progress: seen.append((time.perf_counter(), progress)),
    )
    training = [(when, progress) for when, progress in seen if progress.phase == "train"]
    phases = list(dict.fromkeys(progress.phase for _, progress in seen))

    assert phases == ["prepare", "evaluate", "train", "save"]
    assert sum(progress.score is not None for _, progress in seen) == 3
    assert all(progress.steps == 500 and progress.loss is not None for _, progress in training)
    elapsed = training[-1][0] - training[0][0]
    assert len(training) <= 2 + REPORTS_PER_SECOND * elapsed


@every_engine
def test_engines_print_nothing(engine: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = recipe(epochs=2)
    execution = Execution(seed=0, save_dir=tmp_path, resume=True)
    with pytest.raises(Interrupted):
        engine(pipeline("masked-lm"), recipe=settings, execution=execution, report=interrupt_after(1))
    engine(pipeline("masked-lm"), recipe=settings, execution=execution)

    assert capfd.readouterr() == ("", "")


@every_engine
def test_engines_restore_the_settings_of_torch_and_the_libraries(engine: Train, tmp_path: Path) -> None:
    import datasets
    from transformers.utils import logging

    def state() -> Sequence[Any]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
            logging.get_verbosity(),
            logging.is_progress_bar_enabled(),
            datasets.are_progress_bars_disabled(),
            torch.is_grad_enabled(),
        )

    before = state()
    engine(pipeline(), recipe=recipe(epochs=1), execution=Execution(seed=0))

    assert state() == before


def test_run_json_identifies_the_run(tmp_path: Path) -> None:
    load_engine("loop").train(pipeline(), recipe=recipe(epochs=1), execution=Execution(seed=5, save_dir=tmp_path))
    saved = json.loads((checkpoints(tmp_path)[-1][1] / "run.json").read_text())

    assert tuple(saved["identity"][key] for key in ("engine", "task", "seed")) == ("loop", "token-classification", 5)
    assert 10 == saved["step"] == len(saved["trajectory"])
