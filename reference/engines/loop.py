"""The course's custom training loop, with Accelerate. Every step of training is visible here."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedDataParallelKwargs
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel

from touchstone.engines.checkpoint import load_state
from touchstone.engines.evaluation import to_device
from touchstone.engines.session import Session, divisor, parameter_groups
from touchstone.engines.training import Execution, Recipe, Report, TrainingRun
from touchstone.pipelines.pipeline import Pipeline

MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def train(pipeline: Pipeline, *, recipe: Recipe, execution: Execution, report: Report | None = None) -> TrainingRun:
    """Train a pipeline with the recipe; see `touchstone.engines.engine.Train`.

    Raises:
        EngineError: the device, precision or checkpoint cannot be used, or a loss is not finite.
    """
    session = Session(pipeline, engine="loop", recipe=recipe, execution=execution, report=report)
    with session.open() as model:
        accelerator = _accelerator(execution)
        inner, optimizer = accelerator.prepare(
            model,
            AdamW(
                parameter_groups(model, recipe),
                lr=recipe.learning_rate,
                betas=recipe.betas,
                eps=recipe.epsilon,
                fused=True,
            ),
        )
        schedule = session.schedule(optimizer.optimizer)
        if session.start is None:
            session.evaluate(model)
        else:
            _load(session, optimizer=optimizer, schedule=schedule, accelerator=accelerator)
        parameters = list(inner.parameters())
        inner.train()
        with session.training():
            while session.done < session.steps:
                for micro_batches in session.epoch():
                    sizes = [batch["size"] for batch in micro_batches]
                    # The mean is over all items of the optimizer step, so each micro-batch counts by its items.
                    items = session.items(sizes)
                    total = torch.zeros((), device=session.device)
                    for i, batch in enumerate(micro_batches, start=1):
                        # Ranks exchange gradients once per step. They average, but the step needs the sum.
                        with nullcontext() if i == len(micro_batches) else accelerator.no_sync(inner):
                            loss = pipeline.loss(inner, to_device(batch, session.device)) / divisor(batch, items)
                            accelerator.backward(loss * session.ranks.world)
                        total += loss.detach()
                    accelerator.clip_grad_norm_(parameters, recipe.max_grad_norm)
                    learning_rate = float(schedule.get_last_lr()[0])
                    optimizer.step()
                    if not optimizer.step_was_skipped:  # in fp16, if gradients overflowed
                        schedule.step()
                    optimizer.zero_grad()
                    session.step_done(total, sizes=sizes, learning_rate=learning_rate)
                with session.between_epochs():
                    session.evaluate(model)
                    if execution.save_dir is not None:
                        _save(session, model, optimizer=optimizer, schedule=schedule, accelerator=accelerator)
        accelerator.unwrap_model(inner, keep_fp32_wrapper=False)
    return session.run


def _accelerator(execution: Execution) -> Accelerator:
    # Accelerate keeps one state per process, and refuses a second run with another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return Accelerator(
        cpu=execution.device == "cpu",
        mixed_precision=MIXED_PRECISION[execution.precision],
        # As in Trainer: a head may leave parameters of its body unused.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _save(
    session: Session, model: PreTrainedModel, *, optimizer: Any, schedule: LRScheduler, accelerator: Accelerator
) -> None:
    generators = {"cpu": session.ranks.gather(torch.get_rng_state().tolist())}
    if session.device.type == "cuda":
        generators["cuda"] = session.ranks.gather(torch.cuda.get_rng_state(session.device).tolist())
    if not session.ranks.first:
        return
    states = {
        "optimizer.pt": optimizer.state_dict(),
        "scheduler.pt": schedule.state_dict(),
        "generators.pt": {kind: torch.tensor(rows, dtype=torch.uint8) for kind, rows in generators.items()},
    }
    if accelerator.scaler is not None:
        states["scaler.pt"] = accelerator.scaler.state_dict()
    session.write(model, states=states)


def _load(session: Session, *, optimizer: Any, schedule: LRScheduler, accelerator: Accelerator) -> None:
    assert session.start is not None
    directory, rank = session.start[0], session.ranks.rank
    optimizer.load_state_dict(load_state(directory, "optimizer.pt"))
    schedule.load_state_dict(load_state(directory, "scheduler.pt"))
    if accelerator.scaler is not None and (directory / "scaler.pt").exists():
        accelerator.scaler.load_state_dict(load_state(directory, "scaler.pt"))
    # One row per rank. torch reads a state from the start of its storage, so each row needs its own.
    generators = {kind: states[rank].clone() for kind, states in load_state(directory, "generators.pt").items()}
    torch.set_rng_state(generators["cpu"])
    if "cuda" in generators and session.device.type == "cuda":
        torch.cuda.set_rng_state(generators["cuda"], session.device)
