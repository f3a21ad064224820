"""Make a subject of plain parts: a data set or a loader, a collator, a tokenizer, a model, an evaluation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from touchstone.auditing.adapters.parts_evaluation import PartsEvaluator
from touchstone.auditing.finding import NotChecked
from touchstone.auditing.restore import untouched
from touchstone.auditing.subject import UNKNOWN, Batch, Split, Subject, as_batch, task_of

BATCH_SIZE = 8
BATCHES_READ = 8
ONCE = "the loader can be read only once, and the audit must leave it to the training: pass the DataLoader itself"


def subject_of(
    *,
    dataset: Any = None,
    loader: Any = None,
    collator: Callable[[list[Any]], Any] | None = None,
    tokenizer: Any = None,
    model: Any = None,
    names: Sequence[str] | Mapping[int, str] | None = None,
    evaluate: Callable[..., Mapping[str, Any]] | None = None,
    raw: Any = None,
    columns: Sequence[str] | None = None,
    task: str | None = None,
) -> Subject:
    """Return the subject of plain parts. See `touchstone.audit` for the arguments.

    Raises:
        TypeError: a part is of the wrong kind, or two parts do not go together. The message names the argument.
    """
    _check(dataset=dataset, loader=loader, collator=collator, tokenizer=tokenizer, model=model, evaluate=evaluate)
    if raw is not None and dataset is None:
        raise TypeError("raw= needs dataset= (or a trainer): its rows are compared index by index")
    subject = Subject(
        name=" and ".join(
            name for name, part in (("dataset", dataset), ("loader", loader), ("model", model)) if part is not None
        ),
        task=task or task_of(model),
        model=model,
        tokenizer=tokenizer,
        names=_names(names, model),
        raw=raw,
        raw_columns=columns,
        evaluate=None if evaluate is None else PartsEvaluator(evaluate, model),
        repro="touchstone.audit(..., probes=['{probe}'])",
    )
    with untouched(subject):
        if loader is not None:
            subject.train = of_loader(loader)
            subject.extra["training_loader"] = lambda: loader
        elif dataset is not None:
            subject.train = Split("train", dataset, collator, BATCH_SIZE)
        if subject.task == UNKNOWN and task is None:
            subject.task = _task_of_data(subject)
    return subject


def _check(*, dataset: Any, loader: Any, collator: Any, tokenizer: Any, model: Any, evaluate: Any) -> None:
    if dataset is None and loader is None and model is None:
        raise TypeError("there is nothing to audit: pass a trainer, dataset=, loader= or model=")
    if dataset is not None and loader is not None:
        raise TypeError("dataset= and loader= are both given: pass one of them")
    if collator is not None and dataset is None:
        raise TypeError(
            "collator= needs dataset=" + (": the loader has a collator of its own" if loader is not None else "")
        )
    for name, part in (("collator", collator), ("evaluate", evaluate)):
        if part is not None and not callable(part):
            raise TypeError(f"{name}= is {_kind(part)}, which cannot be called: pass a function")
    if isinstance(tokenizer, str) or (tokenizer is not None and not hasattr(tokenizer, "convert_ids_to_tokens")):
        raise TypeError(
            f"tokenizer= is {_kind(tokenizer)}: pass a tokenizer, such as AutoTokenizer.from_pretrained(...)"
        )
    if model is not None and not (hasattr(model, "named_parameters") and hasattr(model, "modules")):
        raise TypeError(f"model= is {_kind(model)}: pass a torch.nn.Module")
    if evaluate is not None and model is None:
        raise TypeError("evaluate= needs model=: it is called with a copy of the model")
    if dataset is not None:
        _check_dataset(dataset)
    if loader is not None and not isinstance(loader, Iterable):
        raise TypeError(f"loader= is {_kind(loader)}: pass a DataLoader, or a list of batches")


def _check_dataset(dataset: Any) -> None:
    if isinstance(dataset, (str, bytes)):
        raise TypeError(f"dataset= is the text {dataset!r}: load it and pass its processed rows")
    if isinstance(dataset, Mapping):
        first = next(iter(dataset), "train")
        raise TypeError(
            f"dataset= is {_kind(dataset)} with the keys {list(dataset)[:4]}: pass one split, ...[{first!r}]"
        )
    if hasattr(dataset, "collate_fn"):
        raise TypeError("dataset= is a DataLoader: pass it as loader=")
    if not hasattr(dataset, "__getitem__") and not isinstance(dataset, Iterable):
        raise TypeError(f"dataset= is {_kind(dataset)}: pass a data set or a list of rows")


def _names(names: Sequence[str] | Mapping[int, str] | None, model: Any) -> list[str] | None:
    if names is None:
        names = getattr(getattr(model, "config", None), "id2label", None)
    if not names:
        return None
    if isinstance(names, str):
        raise TypeError(f"names= is the text {names!r}: pass the names of all labels, in the order of their ids")
    if isinstance(names, Mapping):
        if sorted(names) != list(range(len(names))):
            raise TypeError(f"names= has the keys {list(names)[:4]}: pass the names in the order of ids 0, 1, 2 ...")
        return [str(names[index]) for index in range(len(names))]
    return [str(name) for name in names]


def of_loader(loader: Any, *, name: str = "train") -> Split:
    """Return the data of a loader. Batches are read from a copy; the loader itself is never iterated."""
    reason = ""
    batches: list[Batch] = []
    try:
        batches = [as_batch(batch) for batch in islice(iter(fresh(loader)), BATCHES_READ)]
    except NotChecked as error:
        reason = str(error)
    dataset, collate = getattr(loader, "dataset", None), getattr(loader, "collate_fn", None)
    size = _size(loader, batches)
    if dataset is None or getattr(loader, "batch_sampler", None) is None or _streams(dataset) or _own_keys(loader):
        reason = reason or "the loader gives batches only, of which rows cannot be chosen: pass dataset= and collator="
        dataset, collate = _NoRows(reason), None
    return Split(
        name,
        dataset,
        collate,
        size,
        loader=lambda: fresh(loader),
        observed=batches,
        drop_last=bool(getattr(loader, "drop_last", False)),
    )


def _own_keys(loader: Any) -> bool:
    """Whether the sampler draws other keys than indices, such as pairs of an epoch and an index."""
    try:
        keys = [key for batch in islice(getattr(fresh(loader), "batch_sampler", ()), 1) for key in batch]
    except NotChecked:
        return False
    return any(not hasattr(key, "__index__") for key in keys)


def _size(loader: Any, batches: Sequence[Batch]) -> int:
    size = getattr(loader, "batch_size", None) or getattr(getattr(loader, "batch_sampler", None), "batch_size", None)
    if isinstance(size, int):
        return size
    sizes = [len(part) for part in (batches[0].values() if batches else ()) if getattr(part, "ndim", 1)]
    return max(sizes, default=BATCH_SIZE)


def fresh(loader: Any) -> Iterable[Any]:
    """Return a loader that gives the batches that this one would give next, without a trace in this one.

    Sampler, generator and collator are copied; a data set with rows is shared. No worker process is started.

    Raises:
        NotChecked: it can be read only once, or it cannot be copied.
    """
    if isinstance(loader, Iterator):
        raise NotChecked(ONCE)
    if isinstance(loader, (list, tuple)):
        return copy.deepcopy(loader)
    memo: dict[int, Any] = {}
    dataset = getattr(loader, "dataset", None)
    if hasattr(dataset, "__getitem__") and not _streams(dataset):
        memo[id(dataset)] = dataset
    if (workers := getattr(loader, "_iterator", None)) is not None:  # processes of a loader that is in use
        memo[id(workers)] = None
    try:
        copied: Any = copy.deepcopy(loader, memo)
    except Exception as error:
        raise NotChecked(f"the loader cannot be copied ({error}): pass dataset= and collator=") from error
    for name, value in (("num_workers", 0), ("timeout", 0), ("prefetch_factor", None), ("pin_memory", False)):
        if hasattr(copied, name):
            setattr(copied, name, value)
    assert isinstance(copied, Iterable)
    return copied


def _streams(dataset: Any) -> bool:
    from torch.utils.data import IterableDataset

    return isinstance(dataset, IterableDataset)


class _NoRows:
    """Stands for a data set whose rows cannot be read, with the reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __len__(self) -> int:
        raise NotChecked(self.reason)

    def __getitem__(self, index: int) -> Any:
        raise NotChecked(self.reason)


def _task_of_data(subject: Subject) -> str:
    """Return the task that the data shows: positions of answers, or named labels for every token."""
    if subject.train is None:
        return UNKNOWN
    try:
        batch = subject.train.observed[0] if subject.train.observed else subject.train.rows(1)[0]
    except (NotChecked, IndexError):
        return UNKNOWN
    if {"start_positions", "end_positions"} <= set(batch):
        return "question-answering"
    if subject.names is not None and {"input_ids", "labels"} <= set(batch):
        shapes = [getattr(batch[name], "shape", None) or _length(batch[name]) for name in ("input_ids", "labels")]
        if shapes[0] == shapes[1] and shapes[0] is not None:
            return "token-classification"
    return UNKNOWN


def _length(values: Any) -> int | None:
    return len(values) if hasattr(values, "__len__") else None


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" if not isinstance(value, str) else f"the text {value!r}"
