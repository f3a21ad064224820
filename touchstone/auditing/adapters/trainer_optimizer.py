"""Make the optimizer and the schedule of a transformers.Trainer again, for a copy of its model."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
from functools import partial
from typing import TYPE_CHECKING, Any

from touchstone.auditing.adapters.trainer_step import line_of, own_code
from touchstone.auditing.finding import NotChecked
from touchstone.auditing.subject import Subject

if TYPE_CHECKING:
    from torch import nn

OVERRIDDEN = ("create_optimizer_and_scheduler", "create_optimizer", "create_scheduler")
RELEVANT = ("learning_rate", "weight_decay", "warmup_steps", "warmup_ratio", "lr_scheduler_type", "optim")
"""Arguments that have no effect if an optimizer or a schedule is passed."""


def add_optimizer(subject: Subject, trainer: Any) -> None:
    """Give the subject of a Trainer its `optimizer`, the steps it will take, and the settings the user chose."""
    subject.optimizer = partial(make_optimizer, trainer, subject)
    subject.settings.planned_steps = planned_steps(trainer, subject)
    for name in OVERRIDDEN:
        method = getattr(type(trainer), name, None)
        if method is not None and own_code(method):
            subject.where["optimizer"] = f"{name}() at {line_of(method)}"
            if name == OVERRIDDEN[0] and not _is_called(trainer, name):
                subject.extra["never called"] = subject.where["optimizer"]
    given = [name for name in ("optimizer", "lr_scheduler") if getattr(trainer, name) is not None]
    subject.extra["given"] = given
    subject.extra["chosen settings"] = {
        field.name: getattr(trainer.args, field.name)
        for field in dataclasses.fields(trainer.args)
        if field.name in RELEVANT and _differs(field, getattr(trainer.args, field.name))
    }


def _differs(field: Any, value: Any) -> bool:
    default = field.default
    return value is not None and default is not dataclasses.MISSING and value != default


def _is_called(trainer: Any, name: str) -> bool:
    """Whether the training loop calls a method. Since transformers 5 it makes the optimizer and the schedule apart."""
    methods = ("train", "_inner_training_loop", "_prepare_for_training")
    sources = []
    for each in methods:
        method = getattr(type(trainer), each, None)
        try:
            sources.append(inspect.getsource(method) if method is not None else "")
        except (OSError, TypeError):
            return True
    return f"self.{name}(" in "".join(sources)


def planned_steps(trainer: Any, subject: Subject) -> int | None:
    """Return the number of optimizer steps the run will take, or None if it is not known."""
    arguments = trainer.args
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    batches = batches_per_epoch(trainer, subject)
    if batches is None:
        return None
    steps = max(math.ceil(batches / arguments.gradient_accumulation_steps), 1)
    total: int = math.ceil(arguments.num_train_epochs * steps)
    return total


def batches_per_epoch(trainer: Any, subject: Subject) -> int | None:
    """Return the number of batches each process gets in an epoch."""
    train = subject.train
    if train is None:
        return None
    if own_code(type(trainer).get_train_dataloader):
        trial = copy.copy(trainer)
        trial.accelerator = copy.copy(trainer.accelerator)
        trial.accelerator._dataloaders = []
        try:
            return len(trial.get_train_dataloader())
        except Exception:
            return None
    try:
        rows = len(train)
    except NotChecked:
        return None
    together = train.batch_size * max(int(trainer.args.world_size), 1)
    return int(rows // together) if train.drop_last else math.ceil(rows / together)


def _other_modules(trainer: Any) -> dict[str, Any]:
    """Return the trainer's attributes that are modules, or dicts of modules, apart from the model."""
    from torch import nn

    return {
        name: part
        for name, part in vars(trainer).items()
        if name not in ("model", "model_wrapped")
        and all(isinstance(each, nn.Module) for each in (part.values() if isinstance(part, dict) and part else [part]))
    }


def make_optimizer(trainer: Any, subject: Subject, model: nn.Module) -> tuple[Any, Any]:
    """Return an optimizer and a schedule for a copy of the trainer's model, as `train()` would have them.

    An optimizer that was passed is copied. Its parameters that are the model's become those of the copy, by name; any
    other parameter is copied too, so that it stays what it is: not the model's.

    Raises:
        NotChecked: the optimizer cannot be copied or made.
    """
    original = getattr(trainer.model, "_orig_mod", trainer.model)
    names = dict(model.named_parameters())
    memo: dict[int, Any] = {id(each): names[name] for name, each in original.named_parameters() if name in names}
    trial = copy.copy(trainer)
    trial.model = trial.model_wrapped = model
    trial.accelerator = copy.copy(trainer.accelerator)
    try:
        for name, part in _other_modules(trainer).items():  # a loss of sentence-transformers holds the model
            setattr(trial, name, copy.deepcopy(part, memo))
        trial.optimizer, trial.lr_scheduler = copy.deepcopy((trainer.optimizer, trainer.lr_scheduler), memo)
        for part in (trial.optimizer, trial.lr_scheduler):
            if part is not None:  # a schedule wraps the `step` of its optimizer, which must not be the original's
                vars(part).pop("step", None)
        steps = subject.settings.planned_steps or 1
        if _is_called(trainer, OVERRIDDEN[0]):
            trial.create_optimizer_and_scheduler(num_training_steps=steps)
        else:
            trial.create_optimizer()
            trial.create_scheduler(num_training_steps=steps)
    except Exception as error:
        text = (str(error).splitlines() or [""])[0]
        raise NotChecked(f"the optimizer cannot be made again ({type(error).__name__}: {text})") from error
    return trial.optimizer, trial.lr_scheduler
