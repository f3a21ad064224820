"""`touchstone.audit`: audit a Trainer, or plain parts, from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from touchstone.auditing.finding import Report
from touchstone.auditing.probe import BUDGETS, Budget, run_probes
from touchstone.auditing.reading.tasks import named_task
from touchstone.auditing.subject import TASKS, UNKNOWN, Subject


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
    names: Sequence[str] | Mapping[int, str] | None = None,
    evaluate: Callable[..., Mapping[str, Any]] | None = None,
    task: str | None = None,
    budget: Budget = "default",
    probes: Iterable[str] | None = None,
    ignore: Mapping[str, str] | None = None,
) -> Report:
    """Audit a training run and return the report. Nothing that is passed is changed.

    Args:
        trainer: a transformers.Trainer before `train()`, or leave it out and pass the parts.
        raw: the rows that the training data was made of, index by index; labels are then checked against them.
        columns: the columns of `raw` that matter, such as ("tokens", "ner_tags").
        dataset: processed rows, before the collator.
        loader: a loader of batches, instead of `dataset`. It is never iterated: batches are read from a copy.
        collator: turns rows of `dataset` into a batch.
        tokenizer: the tokenizer of the rows.
        model: the model.
        names: label names by id.
        evaluate: the user's evaluation: `evaluate(model) -> dict`. It gets a copy of the model.
        task: the task, where the head does not tell.
        budget: `fast` (batches and labels), `default` (forward and backward passes too) or `deep` (also
            stops and resumes a short training).
        probes: run only the probes with these ids.
        ignore: findings to show without counting them: the reason, by the probe's id.

    Raises:
        TypeError: a part is of the wrong kind, or two parts do not go together.
        ValueError: the budget or the task does not exist, or a finding is ignored without a reason.
        UnknownProbe: there is no probe with one of the ids.
    """
    _one_of(budget, BUDGETS, what="budget")
    if task is not None:
        _one_of(task, (*TASKS, UNKNOWN), what="task")
    if columns is not None and raw is None:
        raise TypeError("columns= names columns of raw=: pass raw= as well")
    parts = {
        "dataset": dataset,
        "loader": loader,
        "collator": collator,
        "tokenizer": tokenizer,
        "model": model,
        "names": names,
        "evaluate": evaluate,
    }
    ids = None if probes is None else [probes] if isinstance(probes, str) else list(probes)
    subject = _subject(trainer, parts, raw=raw, columns=columns, task=task)
    if task is None:
        subject.task = named_task(subject)
    return run_probes(subject, budget=budget, ids=ids).ignoring(ignore or {})


def _subject(
    trainer: Any, parts: Mapping[str, Any], *, raw: Any, columns: Sequence[str] | None, task: str | None
) -> Subject:
    if trainer is None:
        from touchstone.auditing.adapters.parts import subject_of as subject_of_parts

        return subject_of_parts(**parts, raw=raw, columns=columns, task=task)
    if not (hasattr(trainer, "train_dataset") and hasattr(trainer, "data_collator")):
        kind = type(trainer).__name__
        raise TypeError(
            f"audit({kind}): this is no transformers.Trainer: pass it by name, as dataset=, loader= or model="
        )
    if given := [name for name, part in parts.items() if part is not None]:
        raise TypeError(
            f"{given[0]}= is given with a trainer, which has its own: leave it out, or leave out the trainer"
        )
    from touchstone.auditing.adapters.trainer import subject_of

    return subject_of(trainer, raw=raw, columns=columns, task=task)


def _one_of(value: str, possible: Iterable[str], *, what: str) -> None:
    names = list(possible)
    if value not in names:
        close = get_close_matches(str(value), names, n=1)
        hint = f": did you mean {close[0]}?" if close else f": possible are {', '.join(names)}"
        raise ValueError(f"{value!r} is no {what}{hint}")
