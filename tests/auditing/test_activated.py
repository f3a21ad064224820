"""A softmax or a sigmoid before a loss that has its own is found; legitimate losses are not accused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    log_softmax,
    multi_margin_loss,
    multilabel_soft_margin_loss,
    nll_loss,
)
from transformers import BertForQuestionAnswering, Trainer, default_data_collator

from tests.auditing.test_step import bert, look, trainer_of
from touchstone.auditing.adapters.trainer import subject_of
from touchstone.auditing.reading import activated
from touchstone.auditing.reading.activated import binary, named
from touchstone.auditing.reading.loss import FITS, Reading, read_loss

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
WEIGHTS = torch.tensor([0.3, 1.0, 2.0, 0.7, 1.5, 4.0, 0.1])


def labels(classes: int) -> torch.Tensor:
    drawn = torch.randint(0, classes, (4, 6), generator=torch.Generator().manual_seed(1))
    drawn[:, 0] = drawn[1, 3:] = -100
    return drawn


def read(loss: Loss, head: Callable[[torch.Tensor], torch.Tensor] | None = None, classes: int = 7) -> Any:
    """Return the reading of a loss, and its value. `head` is the last part of the model."""
    torch.manual_seed(classes)
    states = (1.5 * torch.randn(4, 6, classes)).requires_grad_()
    outputs = states if head is None else head(states)
    outputs.retain_grad()
    value = loss(outputs.flatten(0, 1), labels(classes).flatten())
    value.backward()
    assert outputs.grad is not None
    reading = read_loss(outputs.detach(), outputs.grad, labels(classes))
    return reading, value.item()


def judged(found: tuple[Reading, float]) -> Any:
    return named([found[0].applied], found[1])


def focal(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    each = cross_entropy(logits, target, reduction="none")
    return ((1 - (-each).exp()) ** 2 * each).sum() / (target != -100).sum()


def margin(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return multi_margin_loss(logits[target != -100], target[target != -100])


def row_weights(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    weights = torch.linspace(0.2, 3, len(target))
    return (cross_entropy(logits, target, reduction="none") * weights).mean()


def entropy_bonus(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    p = logits.softmax(-1)
    return cross_entropy(logits, target) + 0.1 * (p * p.log()).sum(-1)[target != -100].mean()


def mean_absolute_error(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    p = logits.softmax(-1)[target != -100]
    return (1 - p.gather(-1, target[target != -100][:, None])).mean()


LEGITIMATE: dict[str, Loss] = {
    "mean": cross_entropy,
    "sum": lambda z, y: cross_entropy(z, y, reduction="sum"),
    "smoothed": lambda z, y: cross_entropy(z, y, label_smoothing=0.1),
    "weighted": lambda z, y: cross_entropy(z, y, weight=WEIGHTS[: z.shape[-1]]),
    "log_softmax twice": lambda z, y: cross_entropy(log_softmax(z, -1), y),
    "nll of log_softmax": lambda z, y: nll_loss(log_softmax(z, -1), y),
    "nll of log of softmax": lambda z, y: nll_loss(z.softmax(-1).log(), y),
    "temperature": lambda z, y: cross_entropy(z / 3, y),
    "capped": lambda z, y: cross_entropy(5 * torch.tanh(z / 5), y),
    "focal": focal,
    "margin": margin,
    "weights of rows": row_weights,
    "entropy bonus": entropy_bonus,
    "mean absolute error": mean_absolute_error,
}


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("name", LEGITIMATE)
def test_a_legitimate_loss_is_not_accused(name: str, classes: int) -> None:
    assert judged(read(LEGITIMATE[name], classes=classes)) is None


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("loss", [cross_entropy, LEGITIMATE["weighted"], LEGITIMATE["sum"]])
def test_an_activation_before_cross_entropy_is_named_with_the_floor_of_the_loss(
    kind: str, classes: int, loss: Loss
) -> None:
    finding = judged(read(lambda z, y: loss(z.softmax(-1) if kind == "softmax" else z.sigmoid(), y), classes=classes))
    assert finding is not None
    assert finding.outcome == "fail"
    assert f"cross_entropy({kind}(logits))" in finding.cause
    assert f"= {math.log(1 + (classes - 1) / math.e):.3f}" in finding.cause


def test_the_floor_is_the_loss_of_the_surest_logits() -> None:
    sure = 1e4 * torch.nn.functional.one_hot(torch.arange(7)).float()
    value = cross_entropy(sure.softmax(-1), torch.arange(7)).item()
    found, _ = read(lambda z, y: cross_entropy(z.softmax(-1), y))
    assert found.applied is not None
    assert found.applied.floor == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("classes", [2, 7])
def test_nll_loss_of_raw_logits_is_a_fault(classes: int) -> None:
    finding = judged(read(nll_loss, classes=classes))
    assert finding is not None
    assert finding.outcome == "fail"
    assert "nll_loss(logits)" in finding.cause


def test_nll_loss_of_probabilities_is_a_warning() -> None:
    finding = judged(read(lambda z, y: nll_loss(z.softmax(-1), y)))
    assert finding is not None
    assert finding.outcome == "warn"


def test_a_model_that_returns_log_probabilities_is_trained_with_cross_entropy() -> None:
    found, _ = read(nll_loss, head=lambda z: log_softmax(z, -1))
    assert found.misfit < FITS
    assert found.common_weight()[1] < FITS
    assert found.common_weight()[0] == pytest.approx(1 / found.count, rel=1e-5)


def test_a_model_that_returns_probabilities_is_trained_with_their_logarithm() -> None:
    found, _ = read(lambda p, y: nll_loss(p.log(), y), head=lambda z: z.softmax(-1))
    assert found.misfit < FITS
    assert found.common_weight()[0] == pytest.approx(1 / found.count, rel=1e-5)


def test_cross_entropy_of_a_model_that_returns_probabilities_is_a_fault() -> None:
    finding = judged(read(cross_entropy, head=lambda z: z.softmax(-1)))
    assert finding is not None
    assert "cross_entropy(softmax(logits))" in finding.cause


@pytest.mark.parametrize(("loss", "found"), [(lambda z, y: cross_entropy(z.softmax(-1), y), True), (focal, False)])
def test_a_large_vocabulary_hides_the_other_classes_but_not_the_weights(loss: Loss, found: bool) -> None:
    reading, value = read(loss, classes=20_000)
    assert (named([reading.applied], value) is not None) == found
    assert (named([reading.applied], None) is not None) == found


def test_the_reading_does_not_depend_on_how_many_positions_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = read(lambda z, y: cross_entropy(z.softmax(-1), y))
    monkeypatch.setattr(activated, "CHUNK", 20)
    parts, _ = read(lambda z, y: cross_entropy(z.softmax(-1), y))
    assert whole.applied is not None
    assert parts.applied is not None
    assert parts.applied.kind == whole.applied.kind == "softmax"
    assert parts.applied.loss == pytest.approx(whole.applied.loss)


def test_a_loss_of_another_value_is_not_accused() -> None:
    found, value = read(lambda z, y: cross_entropy(z.softmax(-1), y))
    assert named([found.applied], value + 0.1) is None


def read_binary(loss: Loss, head: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Any:
    torch.manual_seed(2)
    states = torch.randn(8, 5).requires_grad_()
    outputs = states if head is None else head(states)
    outputs.retain_grad()
    target = torch.randint(0, 2, (8, 5), generator=torch.Generator().manual_seed(3)).float()
    value = loss(outputs, target)
    value.backward()
    assert outputs.grad is not None
    return binary(outputs.detach(), outputs.grad, target, value.item())


@pytest.mark.parametrize(
    "loss",
    [
        binary_cross_entropy_with_logits,
        multilabel_soft_margin_loss,
        lambda z, y: binary_cross_entropy_with_logits(z, y, reduction="sum"),
        lambda z, y: binary_cross_entropy_with_logits(z, y, pos_weight=torch.arange(1.0, 6.0)),
        lambda z, y: binary_cross_entropy(z.sigmoid(), y),
    ],
)
def test_binary_cross_entropy_passes(loss: Loss) -> None:
    assert read_binary(loss).outcome == "pass"


def binary_focal(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    each = binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((1 - (-each).exp()) ** 2 * each).mean()


@pytest.mark.parametrize("loss", [torch.nn.functional.mse_loss, torch.nn.functional.huber_loss, binary_focal])
def test_another_loss_of_numbers_is_not_judged(loss: Loss) -> None:
    assert read_binary(loss) is None


@pytest.mark.parametrize("weights", [None, torch.arange(1.0, 6.0)])
def test_a_sigmoid_before_binary_cross_entropy_with_logits_is_a_fault(weights: torch.Tensor | None) -> None:
    finding = read_binary(lambda z, y: binary_cross_entropy_with_logits(z.sigmoid(), y, pos_weight=weights))
    assert finding.outcome == "fail"
    assert "sigmoid" in finding.message


def test_a_sigmoid_at_the_end_of_the_model_is_a_warning() -> None:
    assert read_binary(binary_cross_entropy_with_logits, head=torch.sigmoid).outcome == "warn"


class SoftmaxTwice(Trainer):
    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        places = inputs.pop("start_positions"), inputs.pop("end_positions")
        outputs = model(**inputs)
        pairs = zip((outputs.start_logits, outputs.end_logits), places, strict=True)
        return sum(cross_entropy(logits.softmax(-1), place) for logits, place in pairs) / 2


def test_both_ends_of_an_answer_are_read(tmp_path: Path) -> None:
    ids = torch.randint(1, 50, (8, 9), generator=torch.Generator().manual_seed(4)).tolist()
    data = [{"input_ids": row, "start_positions": 1 + i % 4, "end_positions": 5 + i % 3} for i, row in enumerate(ids)]
    trainer = trainer_of(tmp_path, bert(BertForQuestionAnswering), SoftmaxTwice, data)
    trainer.data_collator = default_data_collator
    finding = look(subject_of(trainer), "loss-is-the-mean-over-labels")
    assert finding.outcome == "fail"
    assert "with 9 classes" in finding.cause
