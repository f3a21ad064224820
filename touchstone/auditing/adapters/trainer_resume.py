"""A short training of a transformers.Trainer that is stopped and resumed, to see which rows it draws."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from touchstone.auditing.adapters.trainer_evaluation import chosen, sandbox
from touchstone.auditing.copies import copy_of
from touchstone.auditing.finding import NotChecked
from touchstone.auditing.restore import untouched

if TYPE_CHECKING:
    from touchstone.auditing.subject import Subject

ROWS = 24
BATCH = 4
STOP = 8
"""The optimizer step after which training is stopped: within the second epoch of 6 steps."""
STEPS = 12


def resumed(subject: Subject, trainer: Any) -> tuple[list[Any], list[Any]]:
    """Return the rows of the steps after the stop, in a whole training and in one that was stopped and resumed.

    The model is not called: each step draws a random number instead, as dropout would.
    """
    from tempfile import TemporaryDirectory

    if not hasattr(trainer.train_dataset, "__len__"):
        raise NotChecked("the training data is a stream: what is drawn after a resume depends on its source")
    if len(trainer.train_dataset) < ROWS:
        raise NotChecked(f"there are fewer than {ROWS} training rows")
    with TemporaryDirectory() as folder:
        with untouched(subject):
            whole = _train(trainer, folder, None)
        checkpoint = os.path.join(folder, f"checkpoint-{STOP}")
        if len(whole) != STEPS or not os.path.isdir(checkpoint):
            raise NotChecked(f"a short training took {len(whole)} of {STEPS} steps, or wrote no checkpoint")
        if any(len(rows) != BATCH for rows in whole):
            raise NotChecked(f"the loader has a batch size of its own: batches have {len(whole[0])} rows, not {BATCH}")
        with untouched(subject):
            rest = _train(trainer, folder, checkpoint)
        if whole[STOP:] != rest:
            with untouched(subject):
                first, again = (str(trainer.train_dataset[0]) for _ in range(2))
            if first != again:
                raise NotChecked("the training rows are random, so that rows after a resume cannot be told apart")
    return whole[STOP:], rest


def _train(trainer: Any, folder: str, checkpoint: str | None) -> list[Any]:
    """Train a copy without its model, from a checkpoint or from the start, and return the rows of each step."""
    import torch
    from transformers import Trainer, TrainerState, set_seed

    seen: list[Any] = []
    made: dict[int, tuple[Any, list[Any]]] = {}
    with sandbox(trainer, copy_of(trainer.model)) as trial:
        trial.train_dataset = chosen(trainer.train_dataset, None, ROWS)
        trial.state = TrainerState()
        arguments: dict[str, Any] = {
            "output_dir": folder,
            "max_steps": STEPS,
            "per_device_train_batch_size": BATCH,
            "gradient_accumulation_steps": 1,
            "save_steps": STOP,
            "save_total_limit": None,
            "load_best_model_at_end": False,
            "auto_find_batch_size": False,
            "push_to_hub": False,
            "eval_on_start": False,
            "save_only_model": False,
            "skip_memory_metrics": True,
        }
        for name, value in arguments.items():
            if hasattr(trial.args, name):
                setattr(trial.args, name, value)
        for name, kind in (("save_strategy", "STEPS"), ("eval_strategy", "NO"), ("logging_strategy", "NO")):
            present = getattr(trial.args, name, None)
            if present is not None:
                setattr(trial.args, name, type(present)[kind])
        trial._train_batch_size = trial.args.train_batch_size
        trial.model_init = None
        trial.save_model = lambda path, *_, **__: os.makedirs(path, exist_ok=True)
        trial._load_from_checkpoint = lambda *_, **__: None

        collate = trial.data_collator

        def collated(rows: list[Any]) -> Any:
            given = [str(row) for row in rows]  # the collator may change rows, and mask them at random
            batch = collate(rows)
            ids = batch.get("input_ids") if hasattr(batch, "get") else None
            if ids is not None:
                made[id(ids)] = ids, given
            return batch

        trial.data_collator = collated

        def step(model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
            ids = inputs.get("input_ids")
            if ids is None:
                seen.append(str(inputs))
            else:
                seen.append(made[id(ids)][1] if id(ids) in made else [row.tolist() for row in ids])
            torch.rand(1)
            return torch.tensor(0.0)

        trial.training_step = step
        train: Any = Trainer.train
        while hasattr(train, "__wrapped__"):  # without the hook of the audit
            train = train.__wrapped__
        set_seed(trial.args.seed)
        try:
            train(trial, resume_from_checkpoint=checkpoint)
        except Exception as error:
            raise NotChecked(f"a short training raised {type(error).__name__}: {error}") from error
    return seen
