"""Read the data of a Trainer whose subclass makes its own loaders, from these loaders."""

from __future__ import annotations

from typing import Any

from touchstone.auditing.adapters.parts import of_loader
from touchstone.auditing.adapters.trainer_evaluation import sandbox
from touchstone.auditing.adapters.trainer_step import own_code
from touchstone.auditing.restore import untouched
from touchstone.auditing.subject import Split, Subject


def add_own_loaders(subject: Subject, trainer: Any) -> None:
    """Replace the splits whose loader is the user's own: its rows and collator are those that the model sees."""
    subject.train = _own(subject, trainer, subject.train, "get_train_dataloader")
    subject.evaluation = _own(subject, trainer, subject.evaluation, "get_eval_dataloader")


def _own(subject: Subject, trainer: Any, split: Split | None, method: str) -> Split | None:
    if split is None or not own_code(getattr(trainer, method)):
        return split
    with untouched(subject), sandbox(trainer, trainer.model) as trial:
        try:
            loader = getattr(trial, method)()
            return of_loader(getattr(loader, "base_dataloader", loader), name=split.name)
        except Exception:  # the loader needs what only a training has: look at the data sets themselves
            return split
