"""`touchstone.audit`: audit a Trainer, or plain parts, from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from touchstone.auditing.finding import Report
from touchstone.auditing.probe import Budget, run_probes


def audit(
    trainer: Any = None,
    *,
    raw: Any = None,
    columns: Sequence[str] | None = None,
    dataset: Any = None,
    loader: Any = None,
    collator: Callable[[list[Any]], Any] | None = None,
    tokenizer: Any = None,
    model: Any = None,
    names: Sequence[str] | None = None,
    evaluate: Callable[..., Mapping[str, Any]] | None = None,
    task: str | None = None,
    budget: Budget = "default",
    probes: Iterable[str] | None = None,
) -> Report:
    """Audit a training run and return the report. Nothing that is passed is changed.

    Args:
        trainer: a transformers.Trainer before `train()`, or leave it out and pass the parts.
        raw: the rows that the training data was made of, index by index; labels are then checked against them.
        columns: the columns of `raw` that matter, such as ("tokens", "ner_tags").
        dataset: processed rows, before the collator.
        loader: a loader of batches, instead of `dataset`.
        collator: turns rows into a batch.
        tokenizer: the tokenizer of the rows.
        model: the model.
        names: label names by id.
        evaluate: the user's evaluation: `evaluate(model) -> dict`.
        task: the task, where the head does not tell.
        budget: `fast` (batches and labels), `default` (forward and backward passes too) or `deep` (short trainings,
            resume, two processes).
        probes: run only the probes with these ids.
    """
    from touchstone.auditing import trainer as trainers

    if trainer is not None:
        subject = trainers.subject_of(trainer, raw=raw, columns=columns, task=task)
    else:
        raise NotImplementedError
    return run_probes(subject, budget=budget, ids=probes)
