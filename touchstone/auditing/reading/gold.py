"""Predictions whose score is known: the labels themselves, wrong ones, noise where no label is.

All functions take a `Prediction` and return outputs of the same structure and shape, as the user's metric expects them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from touchstone.auditing.adapters.evaluated import Pair, Prediction
from touchstone.auditing.finding import NotChecked
from touchstone.auditing.subject import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

HEIGHT = 20.0
"""The logit of the chosen class; all others are 0."""


def first(outputs: Any) -> Any:
    """Return the logits or ids of some outputs.

    Raises:
        NotChecked: there are none.
    """
    if isinstance(outputs, (tuple, list)) and not outputs:
        raise NotChecked("the evaluation rows have no labels, or nothing is predicted")
    return outputs[0] if isinstance(outputs, (tuple, list)) else outputs


def kind(prediction: Prediction) -> str:
    """Return what the outputs are.

    `logits` per token, generated `ids`, `spans`, `classes` per row, `flags` (any number of labels per row), or
    `numbers` (a regression).

    Raises:
        NotChecked: they are something else, or there are no labels.
    """
    outputs, labels = prediction.outputs, prediction.labels
    if labels is None:
        raise NotChecked("the evaluation rows have no labels")
    head, gold = first(outputs), first(labels)
    if not hasattr(head, "dim") or not hasattr(gold, "dim"):
        raise NotChecked(f"predictions are {type(head).__name__}, not tensors")
    if isinstance(labels, (tuple, list)):
        if _are_spans(outputs, labels):
            return "spans"
        raise NotChecked(f"{len(labels)} kinds of labels: which prediction belongs to which is not known")
    if head.is_floating_point() and head.dim() == 2 and head.shape == gold.shape and head.shape[1] > 1:
        if bool(((gold == 0) | (gold == 1)).all()):
            return "flags"
        raise NotChecked("several numbers are predicted for each row")
    if gold.is_floating_point():
        if head.is_floating_point() and head.numel() == gold.numel() == len(gold):
            return "numbers"
        raise NotChecked("labels are numbers, not classes")
    if head.is_floating_point() and head.dim() == 3 and gold.dim() == 2 and head.shape[:2] == gold.shape:
        return "logits"
    if not head.is_floating_point() and head.dim() == 2 and gold.dim() == 2:
        return "ids"
    if head.is_floating_point() and head.dim() == 2 and gold.dim() == 1 and head.shape[1] > 1:
        return "classes"
    raise NotChecked(f"predictions of shape {tuple(head.shape)} do not fit labels of shape {tuple(gold.shape)}")


def _are_spans(outputs: Any, labels: Any) -> bool:
    """Return whether there is a start and an end for each row, and logits of every position for both."""
    if len(labels) != 2 or not isinstance(outputs, (tuple, list)) or len(outputs) < 2:
        return False
    return all(each.dim() == 1 for each in labels) and all(getattr(each, "ndim", 0) == 2 for each in outputs[:2])


def with_first(outputs: Any, head: Any) -> Any:
    """Return outputs whose first entry is replaced."""
    return (head, *outputs[1:]) if isinstance(outputs, (tuple, list)) else head


def one_hot(classes: Tensor, width: int, like: Tensor) -> Tensor:
    """Return logits that choose the given classes."""
    made = like.new_zeros((*classes.shape, width))
    return made.scatter_(-1, classes.clamp(0, width - 1).unsqueeze(-1), HEIGHT)


def targets(labels: Tensor, shift: bool) -> Tensor:
    """Return the label that each position predicts; -100 where it predicts none."""
    if not shift:
        return labels
    moved = labels.new_full(labels.shape, IGNORED)
    moved[:, :-1] = labels[:, 1:]
    return moved


def replaced(
    prediction: Prediction, choose: Callable[[Tensor], Tensor], *, shift: bool = False, pad: int | None = None
) -> Any:
    """Return outputs that predict `choose(labels)` wherever there is a label.

    Args:
        prediction: what the model predicted.
        choose: turns labels (-100 where there is none) into the classes or ids to predict.
        shift: position j predicts label j + 1.
        pad: the padding id, for generated ids.
    """
    import torch

    what, outputs, labels = kind(prediction), prediction.outputs, prediction.labels
    if what == "spans":
        made = [
            one_hot(choose(side.unsqueeze(1)).squeeze(1), logits.shape[1], logits)
            for side, logits in zip(labels, outputs[:2], strict=True)
        ]
        return (*made, *outputs[2:])
    head = first(outputs)
    if what == "numbers":
        return with_first(outputs, choose(labels).reshape(head.shape).to(head.dtype))
    if what == "flags":
        # No two heights are equal, so that a softmax, which lets one label win over the others, shows.
        heights = HEIGHT * torch.linspace(1, 2, head.shape[1], device=head.device)
        return with_first(outputs, torch.where(choose(labels) > 0, heights, -heights).to(head.dtype))
    if what == "classes":
        return with_first(outputs, one_hot(choose(labels.unsqueeze(1)).squeeze(1), head.shape[1], head))
    if what == "logits":
        wanted = targets(choose(labels), shift)
        chosen = one_hot(wanted, head.shape[2], head)
        return with_first(outputs, torch.where((wanted != IGNORED).unsqueeze(-1), chosen, head))
    rows = [row[row != IGNORED] for row in choose(labels)]
    width = max(head.shape[1], max(len(row) for row in rows) + 1)
    filler = int(pad) if pad is not None else int(head[0, -1])
    made_ids = head.new_full((head.shape[0], width), filler)
    made_ids[:, 0] = head[:, 0]  # the start token that `generate` puts before its output
    for index, row in enumerate(rows):
        made_ids[index, 1 : len(row) + 1] = row
    return with_first(outputs, made_ids)


def same(labels: Tensor) -> Tensor:
    """Choose the labels themselves."""
    return labels


def wrong(width: int, what: str = "classes") -> Callable[[Tensor], Tensor]:
    """Return a choice that is wrong everywhere: the next class, the other flag, or the negative number."""

    def choose(labels: Tensor) -> Tensor:
        if what == "flags":
            return 1 - labels
        if what == "numbers":
            return -labels
        return labels.where(labels == IGNORED, (labels + 1) % width)

    return choose


def cut(special: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Return a choice that keeps only the first half of each row's ordinary tokens."""

    def choose(labels: Tensor) -> Tensor:
        made = labels.clone()
        for row in made:
            places = [place for place, each in enumerate(row.tolist()) if each != IGNORED and each not in special]
            row[places[(len(places) + 1) // 2 :]] = IGNORED
        return made

    return choose


def partly(width: int | None, special: Sequence[int] = ()) -> Callable[[Tensor], Tensor]:
    """Return a choice that is wrong at some labels of most rows, whatever batch and padding a row is in.

    Args:
        width: the number of classes, or None to leave the label out (for generated ids).
        special: ids that are not counted, such as padding that the Trainer puts behind labels.
    """

    def choose(labels: Tensor) -> Tensor:
        if labels.is_floating_point():
            return labels * (labels.abs() * 8).round().remainder(3)
        made = labels.clone()
        for row in made:
            places = [place for place, each in enumerate(row.tolist()) if each != IGNORED and each not in special]
            odd = sum(row[places].tolist()) % 3
            if odd:
                some = places[:: 2 + 3 * odd]
                row[some] = IGNORED if width is None else (row[some] + 1) % width
        return made

    return choose


def noise(prediction: Prediction, *, shift: bool = False, extra: int = 0, seed: int = 0) -> Any:
    """Return outputs with other predictions where no label is, and `extra` more columns without labels."""
    import torch

    if kind(prediction) != "logits":
        raise NotChecked("predictions are not per token: there are no positions without a label")
    head, labels = first(prediction.outputs), prediction.labels
    generator = torch.Generator().manual_seed(seed)
    count = head.shape[2]
    if extra:
        head = torch.cat([head, head.new_zeros((head.shape[0], extra, count))], dim=1)
        labels = torch.cat([labels, labels.new_full((labels.shape[0], extra), IGNORED)], dim=1)
    free = labels == IGNORED
    if shift:  # a position counts neither for its own label nor for the next
        free = free & (targets(labels, True) == IGNORED)
    classes = torch.randint(0, count, labels.shape, generator=generator).to(head.device)
    made = torch.where(free.unsqueeze(-1), one_hot(classes, count, head), head)
    return Pair((with_first(prediction.outputs, made), labels))
