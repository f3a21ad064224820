"""Training without padding: the recipe's own steps, with as little else as can be.

In every optimizer step the same examples, learning rate, dropout rates and mean over items as in the other engines;
what differs is what is computed for nothing (see `packing`), and the order of the additions. Rows that are all of one
length (chunks of text) pass as they are.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from touchstone.engines.checkpoint import load_state
from touchstone.engines.device import keep_freed_memory, resolve_device
from touchstone.engines.engine import Engine
from touchstone.engines.evaluation import in_order, predict_share, to_device
from touchstone.engines.session import Session, divisor
from touchstone.engines.training import EngineError, Execution, Recipe, Report, TrainingRun
from touchstone.packed.by_groups import MASKS
from touchstone.packed.layout import Layout, Size, rounded
from touchstone.packed.recording import recorder_on
from touchstone.packed.unpadded import Unpadded
from touchstone.packed.weights import Weights
from touchstone.pipelines.pipeline import Batch, FeatureRows, Pipeline

PROVED = 64
"""Examples among which two are sought that differ in length."""
ROUNDING = 1e-4
"""Sums in another order differ by 1e-6 of a loss; rows that see each other change it by more than a hundredth."""
EVAL_BATCHES_MERGED = 4
"""Evaluation's batches that are predicted as one: without padding and logits they fill no more memory than one of the
other engines', and their texts are written in two thirds of the time."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
NO_STEPS = Recipe(epochs=1, batch_size=1, learning_rate=1)
"""For an evaluation, which takes no optimizer step."""


def train(pipeline: Pipeline, *, recipe: Recipe, execution: Execution, report: Report | None = None) -> TrainingRun:
    """Train a pipeline by the recipe; see `touchstone.engines.engine.Train`.

    Raises:
        EngineError: a device, precision or checkpoint that is not to be had, a model that cannot be packed, a loss
            that is not finite.
    """
    _check_precision(execution)
    session = Session(pipeline, engine="packed", recipe=recipe, execution=execution, report=report)
    keep_freed_memory()
    with session.open() as model:
        unpadded = Unpadded(model)
        _prove(session, unpadded)
        weights = computing(unpadded, recipe=recipe, dtype=DTYPES[execution.precision])
        if (recorder := recorder_on(session.device)) is not None:
            unpadded.record(recorder, rows=recipe.batch_size)
        schedule = session.schedule(weights.optimizer)
        if session.start is None:
            session.evaluate(unpadded, batches_merged=EVAL_BATCHES_MERGED)
        else:
            weights.optimizer.load_state_dict(load_state(session.start[0], "optimizer.pt"))
            schedule.load_state_dict(load_state(session.start[0], "scheduler.pt"))
        unpadded.train()
        with session.training():
            while session.done < session.steps:
                for micro_batches in session.epoch():
                    sizes = [batch["size"] for batch in micro_batches]
                    items = session.items(sizes)
                    total = torch.zeros((), device=session.device)
                    # What a step drops depends on the seed and on the step: no state to save and to go on with.
                    key = (execution.seed, session.done, session.ranks.rank)
                    MASKS.seed(*key)
                    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
                    for number, batch in enumerate(micro_batches):
                        unpadded.layout = _layout(batch, session.device, size=unpadded.size)
                        loss = pipeline.loss(unpadded, to_device(batch, session.device)) / divisor(batch, items)
                        loss.backward()  # type: ignore[no-untyped-call]
                        total += loss.detach()
                        weights.collect(first=number == 0)
                    weights.add_up(session.ranks)
                    unpadded.layout = None
                    learning_rate = float(schedule.get_last_lr()[0])
                    weights.step()
                    schedule.step()
                    session.step_done(total, sizes=sizes, learning_rate=learning_rate)
                with session.between_epochs():
                    session.evaluate(unpadded, batches_merged=EVAL_BATCHES_MERGED)
                    if execution.save_dir is not None and session.ranks.first:
                        states = {
                            "optimizer.pt": weights.optimizer.state_dict(),
                            "scheduler.pt": schedule.state_dict(),
                        }
                        with weights.in_full():
                            session.write(model, states=states)
        weights.release()
        unpadded.restore()
    return session.run


def evaluate(pipeline: Pipeline, model: PreTrainedModel, *, execution: Execution) -> list[Any]:
    """Predict the validation split without padding; see `touchstone.engines.engine.Evaluate`."""
    _check_precision(execution)
    device = resolve_device(execution.device, precision=execution.precision)
    keep_freed_memory()
    unpadded = Unpadded(model.to(device))  # type: ignore[arg-type]
    weights = None
    try:
        if execution.precision != "fp32":
            weights = computing(unpadded, recipe=NO_STEPS, dtype=DTYPES[execution.precision])
        share = predict_share(
            pipeline,
            model=unpadded,
            device=device,
            batch_size=EVAL_BATCHES_MERGED * execution.eval_batch_size,
            workers=execution.workers,
        )
    finally:
        if weights is not None:
            weights.release()
        unpadded.restore()
    return in_order(share)


ENGINE = Engine(train, evaluate)


def computing(unpadded: Unpadded, *, recipe: Recipe, dtype: torch.dtype) -> Weights:
    """The model's weights, with which it computes in `dtype` from now on."""
    weights = Weights(unpadded.module, lookups=unpadded.lookups, recipe=recipe, dtype=dtype)
    if weights.master.device.type == "cpu" and dtype == torch.bfloat16:
        unpadded.size = rounded
    return weights


def _check_precision(execution: Execution) -> None:
    if execution.precision not in DTYPES:
        raise EngineError(
            f"engine 'packed' does not support {execution.precision}: use fp32 or bf16, or another engine"
        )


def _prove(session: Session, unpadded: Unpadded) -> None:
    """A model whose positions or attention are none of those that `Unpadded` knows would learn something else, and no
    one would notice: its loss on two rows of different lengths must be what it is with padding, as it is computed in
    training and as in evaluation.

    Raises:
        EngineError: it is not.
    """
    rows = session.loader.dataset
    assert isinstance(rows, FeatureRows)
    some = rows.lengths[:PROVED]
    batch = session.pipeline.collate([rows[0, int(some.argmin())], rows[0, int(some.argmax())]], train=False)
    batch = to_device(batch, session.device)
    unpadded.eval()
    for learns in (True, False):
        with torch.set_grad_enabled(learns):
            losses = (session.pipeline.loss(model, batch).detach() for model in (unpadded, unpadded.module))
            packed, padded = map(float, losses)
        # A loss that is no number with padding, either, is told of by the step that has it.
        if math.isfinite(padded) and not math.isclose(packed, padded, rel_tol=ROUNDING):
            raise EngineError(
                f"{type(unpadded.module).__name__} has a loss of {packed:.6g} without padding and of {padded:.6g} with "
                "it: its rows cannot be packed; take the engine trainer or loop"
            )


def _layout(batch: Batch, device: torch.device, *, size: Size) -> Layout:
    """Made of the batch while it is on the host."""
    return Layout.of(batch["attention_mask"], decoder_mask=batch.get("decoder_mask"), device=device, size=size)
