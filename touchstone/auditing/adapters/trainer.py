"""Make a subject of a transformers.Trainer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from touchstone.auditing.adapters.trainer_evaluation import add_evaluation
from touchstone.auditing.adapters.trainer_loader import add_own_loaders
from touchstone.auditing.adapters.trainer_optimizer import add_optimizer
from touchstone.auditing.adapters.trainer_step import add_step
from touchstone.auditing.subject import MapCall, Settings, Split, Subject, task_of


def subject_of(
    trainer: Any,
    *,
    raw: Any = None,
    columns: Sequence[str] | None = None,
    maps: Sequence[MapCall] = (),
    task: str | None = None,
) -> Subject:
    """Return the subject of a Trainer that has not begun to train.

    Args:
        trainer: a transformers.Trainer, or an instance of a subclass.
        raw: the rows the training rows were made of, index by index.
        columns: the columns of `raw` that matter, such as ("tokens", "ner_tags").
        maps: observed calls of `Dataset.map`.
        task: the task, where the head does not tell.
    """
    arguments = trainer.args
    model = trainer.model
    holders = (trainer, trainer.data_collator, trainer.train_dataset)
    named = [getattr(each, name, None) for name in ("processing_class", "tokenizer") for each in holders]
    tokenizer = next((each for each in named if hasattr(each, "convert_ids_to_tokens")), None)
    id2label = getattr(getattr(model, "config", None), "id2label", None)
    subject = Subject(
        name=type(trainer).__name__,
        task=task or task_of(model),
        model=model,
        tokenizer=tokenizer,
        train=_split(trainer, "train", trainer.train_dataset, arguments.train_batch_size),
        evaluation=_split(trainer, "evaluation", trainer.eval_dataset, arguments.eval_batch_size),
        names=[str(id2label[index]) for index in range(len(id2label))] if id2label else None,
        maps=maps,
        raw=raw,
        raw_columns=columns,
        settings=Settings(
            accumulation=arguments.gradient_accumulation_steps,
            epochs=arguments.num_train_epochs,
            max_steps=arguments.max_steps if arguments.max_steps > 0 else None,
            learning_rate=arguments.learning_rate,
            weight_decay=arguments.weight_decay,
            max_grad_norm=arguments.max_grad_norm,
            label_smoothing=arguments.label_smoothing_factor,
            seed=arguments.seed,
            precision="bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "fp32",
            world_size=arguments.world_size,
            metric_for_best=arguments.metric_for_best_model,
            greater_is_better=arguments.greater_is_better,
            skips_no_data=arguments.ignore_data_skip,
        ),
        extra={"trainer": trainer, "label names": tuple(trainer.label_names)},
    )
    if isinstance(trainer.eval_dataset, dict):
        more = [_split(trainer, "evaluation", each, 1) for each in list(trainer.eval_dataset.values())[1:]]
        subject.extra["more evaluation"] = [split for split in more if split is not None]
    add_own_loaders(subject, trainer)
    add_step(subject, trainer)
    add_optimizer(subject, trainer)
    add_evaluation(subject, trainer)
    return subject


def _split(trainer: Any, name: str, dataset: Any, batch_size: int) -> Split | None:
    if isinstance(dataset, dict):
        dataset = next(iter(dataset.values()), None)
    if dataset is None:
        return None
    keep = None
    if getattr(trainer.args, "remove_unused_columns", False):
        trial = copy.copy(trainer)
        trial._signature_columns = None
        trial._set_signature_columns_if_needed()
        known = getattr(dataset, "column_names", None)  # None in a stream, and in data sets of other libraries
        keep = [each for each in trial._signature_columns if known is None or each in known]
    return Split(
        name,
        dataset,
        trainer.data_collator,
        batch_size,
        drop_last=trainer.args.dataloader_drop_last and name == "train",
        columns=keep,
    )
