"""Rows beside what the collator makes of them: the same tokens before and after it, place by place."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from touchstone.auditing.finding import NotChecked
from touchstone.auditing.reading.lineage import lineages
from touchstone.auditing.reading.streams import held
from touchstone.auditing.subject import IGNORED, Batch, MapCall, Row, Split, Subject, ints

FALSE_ALARM = 5.5
"""Standard deviations of a bound. A normal variable passes 5.5 of them, on either side, with probability 4e-8; the
binomial's heavier tail stays below 1e-6 for the thousands of tokens that are drawn."""


@dataclass(frozen=True)
class Pair:
    """One row of a batch.

    Args:
        ids: `input_ids` as the model receives them.
        labels: `labels`, as long as `ids`, or empty if there are none.
        real: the places that hold the row's own tokens and no padding.
        original: the token ids before the collator, by place; None where the row has no token ids.
        row: the row before the collator, or None.
    """

    ids: list[int]
    labels: list[int]
    real: list[int]
    original: list[int] | None
    row: Row | None = None


def rows_of_split(split: Split, count: int) -> list[Row]:
    """Return up to `count` rows that are spread evenly over the data.

    Raises:
        NotChecked: rows cannot be read, or are not dicts.
    """
    if not hasattr(split.dataset, "__len__"):
        return split.rows(count)
    total = len(split)
    if total <= count:
        return split.rows(total)
    return [split.rows(1, start=index * total // count)[0] for index in range(count)]


def pairs_of(split: Split, rows: Sequence[Row]) -> list[Pair]:
    """Collate rows as one batch and return each beside what became of it.

    Raises:
        NotChecked: the batch has no `input_ids`, or not one row for each row.
    """
    batch = split.batch(rows)
    if "input_ids" not in batch:
        raise NotChecked(f"batches have no input_ids, but {', '.join(map(str, batch)) or 'nothing'}")
    if len(batch["input_ids"]) != len(rows):
        raise NotChecked(f"the collator makes {len(batch['input_ids'])} rows of {len(rows)}: rows cannot be compared")
    return [_pair(batch, index, row) for index, row in enumerate(rows)]


def observed_pairs(split: Split) -> list[Pair]:
    """Return the rows of the batches that were observed, without their originals."""
    found = []
    for batch in split.observed:
        if "input_ids" in batch:
            found += [_pair(batch, index, None) for index in range(len(batch["input_ids"]))]
    return found


def collated_pairs(split: Split, rows: Sequence[Row]) -> list[Pair]:
    """Collate rows in batches of at most 16 and return each beside what became of it."""
    size = max(1, min(split.batch_size, 16))
    return [pair for start in range(0, len(rows), size) for pair in pairs_of(split, rows[start : start + size])]


def labelled(pairs: Sequence[Pair]) -> bool:
    """Say whether rows have a label for each token."""
    return bool(pairs) and all(len(pair.labels) == len(pair.ids) for pair in pairs)


def _pair(batch: Mapping[str, Any], index: int, row: Row | None) -> Pair:
    ids = ints(batch["input_ids"][index])
    labels = batch.get("labels")
    own = ints(labels[index]) if labels is not None and getattr(labels[index], "ndim", 1) == 1 else []
    mask = batch.get("attention_mask")
    seen = ints(mask[index]) if mask is not None and getattr(mask[index], "ndim", 1) == 1 else [1] * len(ids)
    real = [place for place, each in enumerate(seen) if each and place < len(ids)]
    given = ints(row["input_ids"]) if row is not None and "input_ids" in row else None
    original = None if given is None else _placed(given, ids, own)
    if original is not None and given is not None and len(given) < len(ids):
        start = next(place for place, each in enumerate(original) if each != IGNORED)
        kept = row.get("attention_mask") if row is not None else None
        real = [start + place for place in range(len(given)) if kept is None or kept[place]]
    return Pair(ids, own, real, original, row)


def _placed(given: list[int], ids: list[int], labels: list[int]) -> list[int] | None:
    """Return the given ids at the places where the batch holds them, with -100 at padding, or None."""
    if len(given) >= len(ids):
        candidates = [given[: len(ids)]]
    else:
        padding = [IGNORED] * (len(ids) - len(given))
        candidates = [given + padding, padding + given]

    def agreement(candidate: list[int]) -> int:
        return sum(
            each != IGNORED and (each == ids[place] or (len(labels) == len(ids) and each == labels[place]))
            for place, each in enumerate(candidate)
        )

    best = max(candidates, key=agreement)
    return best if agreement(best) * 2 >= min(len(given), len(ids)) else None


def named_value(function: Any, names: Iterable[str]) -> tuple[str, float] | None:
    """Return the first number under one of some names that a function or object carries: attribute, closure, global.

    >>> rate = 0.2
    >>> named_value(type("Collator", (), {"mlm_probability": 0.15})(), ["mlm_probability"])
    ('mlm_probability', 0.15)
    """
    wanted = tuple(names)
    for name in wanted:
        value = getattr(function, name, None)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return name, float(value)
    known: dict[str, Any] = {}
    plain = inspect.unwrap(function)
    while isinstance(plain, partial):
        known.update(plain.keywords)
        plain = plain.func
    if not inspect.isfunction(plain) and not inspect.ismethod(plain):
        plain = type(plain).__dict__.get("__call__")
    if inspect.isfunction(plain) or inspect.ismethod(plain):
        seen = inspect.getclosurevars(plain)
        known = {**seen.globals, **seen.nonlocals, **known}
        for parameter in inspect.signature(plain).parameters.values():
            known.setdefault(parameter.name, parameter.default)
    for name in wanted:
        value = known.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return name, float(value)
    return None


def name_of(function: Any) -> str:
    """Return the name of a function or of an object's class."""
    function = inspect.unwrap(function)
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def place_of(function: Any) -> str:
    """Return `file:line` of a function or of a class of the user's code, or ""."""
    function = inspect.unwrap(function)
    while isinstance(function, partial):
        function = function.func
    target = function if inspect.isfunction(function) or inspect.ismethod(function) else type(function)
    try:
        path, line = inspect.getsourcefile(target), inspect.getsourcelines(target)[1]
    except (TypeError, OSError):
        return ""
    return "" if path is None or "site-packages" in path else f"{path}:{line}"


def has_column(dataset: Any, name: str) -> bool:
    """Say whether a data set has a column."""
    return name in (getattr(dataset, "column_names", None) or ())


def text_columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns whose values are all text."""
    return [key for key in (rows[0] if rows else ()) if all(isinstance(row.get(key), str) for row in rows)]


def flat(row: Mapping[str, Any]) -> Row:
    """Return a row with the entries of its dicts as columns of their own.

    >>> flat({"id": 1, "translation": {"en": "Hi", "fr": "Salut"}})
    {'id': 1, 'translation.en': 'Hi', 'translation.fr': 'Salut'}
    """
    made: Row = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            made.update({f"{key}.{inner}": each for inner, each in value.items()})
        else:
            made[key] = value
    return made


def tokenizing(maps: Sequence[MapCall]) -> list[MapCall]:
    """Return the observed calls that made token ids of text."""
    return [each for each in maps if has_column(each.result, "input_ids") and not has_column(each.source, "input_ids")]


def source_rows(subject: Subject, split: Split, indices: Sequence[int]) -> tuple[list[Row], MapCall] | None:
    """Return the text rows that some rows of a split were tokenized from, if one call of map kept rows one to one."""
    for call in reversed(tokenizing(subject.maps)):
        if len(call.source) == len(call.result) == len(split):
            kept = [call.result[int(index)]["input_ids"] for index in indices[:4]]
            now = [split.dataset[int(index)]["input_ids"] for index in indices[:4]]
            if [ints(each) for each in kept] == [ints(each) for each in now]:
                return [flat(call.source[int(index)]) for index in indices], call
    return None


def sourced_rows(subject: Subject, split: Split, count: int) -> tuple[list[Row], list[Row], str] | None:
    """Return some rows of a split, the text rows that they were made of, and `file:line` of what made them."""
    subject, split = held(subject, split)
    total = len(split)
    used = min(count, total)
    indices = [index * total // used for index in range(used)]
    found = source_rows(subject, split, indices)
    if found is not None:
        return [split.rows(1, start=index)[0] for index in indices], found[0], found[1].where
    for lineage in lineages(subject, split):
        origins = lineage.origins[:count]
        sources = [flat(each.source) for each in origins if isinstance(each.source, Mapping)]
        if len(origins) >= 4 and len(sources) == len(origins) and text_columns(sources):
            return [split.kept(each.row) for each in origins], sources, lineage.where
    return None


def loss_of(subject: Subject, batch: Batch) -> float:
    """Return the loss of a batch as the run computes it: by its own step where there is one, else by the model."""
    if subject.step is not None:
        return float(subject.step([batch]).losses[0])
    if "loss" in subject.where or subject.settings.label_smoothing:
        raise NotChecked("the run computes the loss itself, and its step cannot be repeated")
    loss = outputs_of(subject.quiet_model, batch).get("loss")
    if loss is None:
        raise NotChecked("the model computes no loss, and the step of the run cannot be repeated")
    return float(loss)


def outputs_of(model: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Run a model on a batch without gradients and return its outputs by name.

    Raises:
        NotChecked: the model cannot run on the batch.
    """
    import torch

    given = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
    try:
        with torch.no_grad():
            output = model(**given) if _named_as_usual(model, given) else model(*_positional(model, given))
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else ""
        raise NotChecked(f"the model cannot run on a batch of its own data ({type(error).__name__}: {text})") from error
    if hasattr(output, "items"):
        return dict(output.items())
    if isinstance(output, torch.Tensor):
        return {"logits": output}
    if isinstance(output, tuple):
        return {"logits": next((each for each in output if getattr(each, "ndim", 0) == 3), None)}
    return dict(vars(output)) if hasattr(output, "__dict__") else {}


def _named_as_usual(model: Any, batch: Mapping[str, Any]) -> bool:
    """Say whether a model knows `input_ids` by this name, unlike one with `forward(self, idx, targets)`."""
    try:
        known = inspect.signature(model.forward).parameters
    except (TypeError, ValueError):
        return True
    open_ended = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values())
    return "input_ids" not in batch or "input_ids" in known or open_ended


def _positional(model: Any, batch: Mapping[str, Any]) -> list[Any]:
    """Return the arguments of a model that takes token ids first and, it may be, targets second.

    Without targets, some models compute the logits of the last place only; the ids stand for the targets.
    """
    others = set(batch) - {"input_ids", "labels"}
    if others:
        raise ValueError(f"its arguments other than the token ids are not known: {', '.join(sorted(others))}")
    names = list(inspect.signature(model.forward).parameters)
    second = len(names) > 1 and names[1] in ("targets", "target", "labels", "y", "tgt")
    return [batch["input_ids"]] * (2 if second else 1)
