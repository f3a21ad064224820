"""What the probes of steps share: short batches to step on, and the comparison of gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from touchstone.auditing.finding import NotChecked
from touchstone.auditing.reading.loss import SHIFTS, Reading, read_loss
from touchstone.auditing.subject import IGNORED, SEQ2SEQ, Batch, Split, Step, Subject, tensor

if TYPE_CHECKING:
    from torch import Tensor

ROWS_SEEN = 24
"""Rows among which short ones with labels are looked for."""
ROWS_STEPPED = 4
"""Rows of the batch whose loss is read."""
TARGETS = {"logits": "labels", "start_logits": "start_positions", "end_logits": "end_positions"}
PACKED = ("cu_seq_lens_q", "cu_seqlens", "seq_idx")
"""Inputs of batches that join their rows into one; such batches cannot be joined further."""


def label_count(batch: Batch) -> int:
    """Return the number of labels of a batch; a question has one."""
    if "labels" in batch:
        return int((tensor(batch["labels"]) != IGNORED).sum())
    return len(batch["start_positions"]) if "start_positions" in batch else 0


def length(batch: Batch) -> int:
    """Return the number of positions of a batch."""
    for name in ("input_ids", "inputs_embeds", "labels"):
        if name in batch:
            return int(tensor(batch[name]).shape[1])
    return max((int(each.shape[1]) for each in batch.values() if hasattr(each, "dim") and each.dim() > 1), default=1)


def single_rows(subject: Subject) -> list[tuple[Any, Batch]]:
    """Return some training rows that have labels, each with the batch of it alone, the shortest first.

    Raises:
        NotChecked: none of the first rows has a label.
    """
    return subject.once("single rows", lambda: _single_rows(subject.need("train")))


def _single_rows(train: Split) -> list[tuple[Any, Batch]]:
    made = [(row, train.batch([row])) for row in train.items(ROWS_SEEN)]
    if made and not any(name in made[0][1] for name in ("labels", "start_positions")):
        raise NotChecked("batches have no labels")
    found = [each for each in made if label_count(each[1])]
    if not found:
        raise NotChecked(f"none of the first {ROWS_SEEN} training rows has a label")
    # Two labels at least: a sum and a mean are the same for one.
    wide = [each for each in found if label_count(each[1]) > 1 or "start_positions" in each[1]]
    return sorted(wide or found, key=lambda each: length(each[1]))


def ragged_batch(subject: Subject) -> Batch:
    """Return a batch of a few short training rows of different lengths, so that it has padding if any batch has."""
    rows = single_rows(subject)
    short = rows[: max(len(rows) // 2, ROWS_STEPPED)]
    places = {round(each * (len(short) - 1) / (ROWS_STEPPED - 1)) for each in range(ROWS_STEPPED)}
    train: Split = subject.need("train")
    return train.batch([short[place][0] for place in sorted(places)])


def repeated(batch: Batch, times: int) -> Batch:
    """Return a batch that holds the rows of another several times.

    Raises:
        NotChecked: its rows cannot be told apart.
    """
    import torch

    if any(name in batch for name in PACKED):
        raise NotChecked("the rows of a batch are packed into one: they cannot be put into other batches")
    return {
        name: torch.cat([value] * times) if isinstance(value, torch.Tensor) and value.dim() else value
        for name, value in batch.items()
    }


@dataclass
class Relation:
    """How one gradient relates to another.

    Args:
        ratio: the multiple of the other that comes closest.
        misfit: the share of its squared length that this multiple leaves.
    """

    ratio: float
    misfit: float

    def is_multiple(self, factor: float) -> bool:
        """Whether it is the other times `factor`.

        Float32 sums in another order differ by 1e-6 to 1e-4; the factors to tell apart differ by a third at least.
        """
        return self.misfit < 1e-3 and abs(self.ratio / factor - 1) < 0.01


def relation(gradients: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Relation:
    """Compare two gradients.

    Raises:
        NotChecked: one of them is zero or not finite.
    """
    names = [name for name in others if name in gradients]
    dot = sum(float((gradients[name].double() * others[name].double()).sum()) for name in names)
    own, other = squared(gradients), squared(others)
    if not own or not other or own != own or other != other or float("inf") in (own, other):
        raise NotChecked("the gradient of a step is zero or not finite")
    ratio = dot / other
    return Relation(ratio, max(own - ratio * dot, 0.0) / own)


def squared(gradients: Mapping[str, Tensor]) -> float:
    """Return the squared length of a gradient."""
    return sum(float(each.double().pow(2).sum()) for each in gradients.values())


def expected_shift(subject: Subject, batch: Batch) -> int | None:
    """Return how far a target should lie ahead of its logits, by the convention of the batch; None if it is unknown.

    A causal model whose labels repeat its inputs shifts them by one; one whose labels are the next inputs does not.
    """
    if "labels" not in batch or subject.task in SEQ2SEQ:
        return 0
    if subject.task == "unknown":
        return None
    if subject.task != "causal-lm" or "input_ids" not in batch:
        return 0
    labels, ids = tensor(batch["labels"]), tensor(batch["input_ids"])
    if labels.shape != ids.shape:
        return None
    known = labels != IGNORED
    same = float((labels == ids)[known].float().mean())
    ahead = float((labels[:, :-1] == ids[:, 1:])[known[:, :-1]].float().mean()) if bool(known[:, :-1].any()) else 0.0
    return 1 if same > 0.9 else 0 if ahead > 0.9 else None


def readings(subject: Subject, step: Step, index: int = 0) -> dict[str, Reading]:
    """Return the readings of one micro-batch's loss, by the name of the logits.

    Raises:
        NotChecked: logits were not seen, or have no labels of their shape.
    """
    pulls = step.pulls[index] if step.pulls else {}
    if not pulls:
        raise NotChecked(
            "the loss cannot be read: the model returned no logits, or was called several times for a batch"
        )
    batch = step.batches[index]
    expected = expected_shift(subject, batch)
    found = {}
    for name, pull in pulls.items():
        labels = batch.get(TARGETS[name])
        logits, gradient = pull.logits, pull.gradient
        if labels is None or gradient is None or tensor(labels).is_floating_point():
            raise NotChecked(f"the loss cannot be read: there are no label ids for the model's {name}")
        labels = tensor(labels).to(logits.device)[: len(logits)]
        if labels.dim() == logits.dim() - 1 == 1:  # one label a row
            labels, logits, gradient = labels[:, None], logits[:, None], gradient[:, None]
            if name != "logits":  # a position behind the window is ignored
                labels = labels.masked_fill((labels < 0) | (labels >= logits.shape[-1]), IGNORED)
        if logits.dim() != 3 or labels.dim() != 2 or logits.shape[1] < labels.shape[1] or logits.shape[-1] < 2:
            raise NotChecked(f"the loss cannot be read: logits {tuple(logits.shape)}, labels {tuple(labels.shape)}")
        shifts: Sequence[int] = (0,)
        if labels.shape[1] > 1:
            first = 0 if expected is None else expected
            shifts = (first, *(each for each in SHIFTS if each != first))
        found[name] = read_loss(logits, gradient, labels, smoothing=subject.settings.label_smoothing, shifts=shifts)
    return found


def rows_and_positions(batch: Batch) -> tuple[int, int]:
    """Return the number of rows of a batch, and of positions of a row of labels."""
    labels: Any = batch.get("labels", batch.get("start_positions"))
    shape = tensor(labels).shape
    return int(shape[0]), int(shape[1]) if len(shape) > 1 else 1
