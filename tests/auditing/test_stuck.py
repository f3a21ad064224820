"""Parameters that hold each other at zero are found; gates, adapters and unused parts are not accused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.auditing.fingerprint import fingerprint
from tests.auditing.test_step import bert, look, trainer_of
from touchstone.auditing.adapters.trainer import subject_of
from touchstone.auditing.finding import Finding

PROBE = "every-parameter-learns"


class LoRA(nn.Module):
    """A linear layer with a low-rank addition."""

    def __init__(self, base: nn.Linear, a: float, b: float) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Parameter(a * torch.randn(base.in_features, 2))
        self.b = nn.Parameter(b * torch.randn(2, base.out_features))

    def forward(self, x: torch.Tensor) -> Any:
        return self.base(x) + x @ self.a @ self.b


class Around(nn.Module):
    """A layer in the branch of a gate that begins at zero."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> Any:
        return self.alpha * self.inner(x)


class Gated(nn.Module):
    """A linear layer whose adapter has a gate, and an up-projection that begins at `up`."""

    def __init__(self, base: nn.Linear, gate: Any, up: float) -> None:
        super().__init__()
        self.base, self.gate = base, gate
        self.scale = nn.Parameter(torch.zeros(1))
        self.down = nn.Parameter(torch.randn(base.in_features, 2))
        self.up = nn.Parameter(up * torch.randn(2, base.out_features))

    def forward(self, x: torch.Tensor) -> Any:
        return self.base(x) + self.gate(self.scale) * (x @ self.down @ self.up)


class Experts(nn.Module):
    """A linear layer with low-rank experts, one of which is chosen by a hard router that has no gradient."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.router = nn.Parameter(torch.zeros(base.in_features, 3))
        self.a = nn.ParameterList([nn.Parameter(torch.randn(base.in_features, 2)) for _ in range(3)])
        self.b = nn.ParameterList([nn.Parameter(torch.zeros(2, base.out_features)) for _ in range(3)])

    def forward(self, x: torch.Tensor) -> Any:
        chosen = nn.functional.one_hot((x @ self.router).argmax(-1), 3)
        return self.base(x) + sum(chosen[..., i : i + 1] * (x @ self.a[i] @ self.b[i]) for i in range(3))


class Dead(nn.Module):
    """A linear layer with a branch of ReLU units that are all below zero."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 3)
        self.up = nn.Linear(3, base.out_features)
        nn.init.constant_(self.down.bias, -1e3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.base(x) + self.up(self.down(x).relu())


class Unused(nn.Module):
    """A linear layer with tables of zeros that the batch does not need."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.languages = nn.ParameterList([nn.Parameter(torch.zeros(base.out_features)) for _ in range(2)])
        self.never = nn.Parameter(torch.zeros(base.out_features))

    def forward(self, x: torch.Tensor) -> Any:
        return self.base(x) + self.languages[0]


def finding(tmp_path: Path, part: Any, **options: Any) -> Finding:
    model = bert()
    model.classifier = part(model.classifier)
    subject = subject_of(trainer_of(tmp_path, model, **options))
    before = fingerprint(subject, [tmp_path])
    found = look(subject, PROBE)
    assert fingerprint(subject, [tmp_path]) == before
    return found


@pytest.mark.parametrize(
    "part",
    [
        lambda base: LoRA(base, 1, 0),
        lambda base: LoRA(base, 0, 1),
        lambda base: Gated(base, torch.tanh, 1),
        lambda base: Gated(base, lambda scale: scale, 1),
        lambda base: Gated(base, lambda scale: 1 + scale, 0),
        lambda base: Around(LoRA(base, 1, 0)),
    ],
)
def test_a_part_that_begins_at_zero_and_moves_is_no_fault(tmp_path: Path, part: Any) -> None:
    assert finding(tmp_path, part).outcome == "pass"


@pytest.mark.parametrize(
    ("part", "silent"),
    [
        (lambda base: LoRA(base, 0, 0), 2),
        (lambda base: Gated(base, torch.tanh, 0), 3),
        (lambda base: Gated(base, lambda scale: scale, 0), 3),
    ],
)
def test_two_zeros_in_a_row_are_a_fault(tmp_path: Path, part: Any, silent: int) -> None:
    found = finding(tmp_path, part)
    assert found.outcome == "fail"
    assert found.measured == silent
    assert "all zero" in found.cause


def test_an_adapter_alone_that_never_moves_is_a_fault(tmp_path: Path) -> None:
    def part(base: nn.Linear) -> nn.Module:
        return LoRA(base.requires_grad_(False), 0, 0)

    model = bert().requires_grad_(False)
    model.classifier = part(model.classifier)
    found = look(subject_of(trainer_of(tmp_path, model)), PROBE)
    assert found.outcome == "fail"
    assert found.measured == 2


@pytest.mark.parametrize("part", [Experts, Dead, Unused])
def test_parts_that_the_batch_does_not_use_are_not_accused(tmp_path: Path, part: Any) -> None:
    assert finding(tmp_path, part).outcome == "warn"
