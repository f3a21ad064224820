"""The packed engine: train without padding and without other work that does not change the result.

Every optimizer step has the same examples, learning rate, dropout rates and mean over items as in the other engines.
Only the order of additions differs. Rows that all have one length (chunks of text) are not rearranged.
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
from touchstone.packed.layout import Layout, Rounding, rounded
from touchstone.packed.modules import DROPOUT_MASKS
from touchstone.packed.unpadded import Unpadded
from touchstone.packed.weights import Weights
from touchstone.pipelines.pipeline import Batch, FeatureRows, Pipeline

CHECKED_EXAMPLES = 64
"""`_check_packing` compares the shortest and the longest of the first examples."""
LOSS_TOLERANCE = 1e-4
"""Relative. Another order of additions changes a loss by 1e-6; rows that see each other change it by over a percent."""
EVAL_BATCHES_MERGED = 4
"""Evaluation batches that are predicted together. Without padding and logits they take no more memory than one batch of
the other engines, and generating text takes a third less time."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
NO_STEPS = Recipe(epochs=1, batch_size=1, learning_rate=1)
"""The recipe of an evaluation, whose learning rate is not used."""


def train(pipeline: Pipeline, *, recipe: Recipe, execution: Execution, report: Report | None = None) -> TrainingRun:
    """Train a pipeline by the recipe; see `touchstone.engines.engine.Train`.

    Raises:
        EngineError: the device, precision or checkpoint is not available, the model cannot be packed, or a loss is not
            finite.
    """
    dtype = _dtype(execution)
    session = Session(pipeline, engine="packed", recipe=recipe, execution=execution, report=report)
    keep_freed_memory()
    with session.open() as model:
        unpadded = Unpadded(model)
        _check_packing(session, unpadded)
        weights = _take_over_weights(unpadded, recipe=recipe, dtype=dtype)
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
                    # Dropout depends only on seed, step and rank, so a checkpoint needs no generator state.
                    key = (execution.seed, session.done, session.ranks.rank)
                    DROPOUT_MASKS.seed(*key)
                    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
                    for number, batch in enumerate(micro_batches):
                        unpadded.layout = _layout(batch, session.device, rounding=unpadded.rounding)
                        loss = pipeline.loss(unpadded, to_device(batch, session.device)) / divisor(batch, items)
                        loss.backward()  # type: ignore[no-untyped-call]
                        total += loss.detach()
                        weights.collect(first=number == 0)
                    weights.sum_over(session.ranks)
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
                        with weights.in_float32():
                            session.write(model, states=states)
        weights.release()
        unpadded.restore()
    return session.run


def evaluate(pipeline: Pipeline, model: PreTrainedModel, *, execution: Execution) -> list[Any]:
    """Predict the validation split without padding; see `touchstone.engines.engine.Evaluate`."""
    dtype = _dtype(execution)
    device = resolve_device(execution.device, precision=execution.precision)
    keep_freed_memory()
    unpadded = Unpadded(model.to(device))  # type: ignore[arg-type]
    weights = None
    try:
        if dtype != torch.float32:
            weights = _take_over_weights(unpadded, recipe=NO_STEPS, dtype=dtype)
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


def _dtype(execution: Execution) -> torch.dtype:
    """Return the type to compute in.

    Raises:
        EngineError: the engine does not support the precision.
    """
    if execution.precision not in DTYPES:
        raise EngineError(
            f"engine 'packed' does not support {execution.precision}; use fp32 or bf16, or another engine"
        )
    return DTYPES[execution.precision]


def _take_over_weights(unpadded: Unpadded, *, recipe: Recipe, dtype: torch.dtype) -> Weights:
    """Take over the model's weights; from now on it computes in `dtype`."""
    weights = Weights(unpadded.module, lookups=unpadded.lookups, recipe=recipe, dtype=dtype)
    if weights.master.device.type == "cpu" and dtype == torch.bfloat16:
        unpadded.rounding = rounded
    return weights


def _check_packing(session: Session, unpadded: Unpadded) -> None:
    """Check that packing does not change the loss.

    A model with positions or attention that `Unpadded` does not handle would silently learn something else. So the loss
    of two rows of different lengths is computed with and without padding, in training and in evaluation.

    Raises:
        EngineError: the losses differ.
    """
    rows = session.loader.dataset
    assert isinstance(rows, FeatureRows)
    some = rows.lengths[:CHECKED_EXAMPLES]
    batch = session.pipeline.collate([rows[0, int(some.argmin())], rows[0, int(some.argmax())]], train=False)
    batch = to_device(batch, session.device)
    unpadded.eval()
    for with_gradient in (True, False):
        with torch.set_grad_enabled(with_gradient):
            losses = (session.pipeline.loss(model, batch).detach() for model in (unpadded, unpadded.module))
            packed, padded = map(float, losses)
        # A loss that is not finite with padding either is reported by the training step that has it.
        if math.isfinite(padded) and not math.isclose(packed, padded, rel_tol=LOSS_TOLERANCE):
            raise EngineError(
                f"{type(unpadded.module).__name__} has a loss of {packed:.6g} without padding and {padded:.6g} with "
                "padding, so its rows cannot be packed; use the engine trainer or loop"
            )


def _layout(batch: Batch, device: torch.device, *, rounding: Rounding) -> Layout:
    """Make the layout from the masks while they are on the host."""
    return Layout.of(batch["attention_mask"], decoder_mask=batch.get("decoder_mask"), device=device, rounding=rounding)
