"""`Weights` against torch's AdamW with clipping and accumulation, and the model after `release`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from touchstone.engines.training import Recipe
from touchstone.packed.modules import Lookup
from touchstone.packed.weights import Weights

Batch = tuple[torch.Tensor, torch.Tensor]


class Net(nn.Module):
    """A model with every kind of parameter: an embedding that is untied, one tied to the head, one used in two modules,
    a frozen one, matrices and vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.alone = nn.Embedding(50, 8, padding_idx=0)
        self.tied = nn.Embedding(30, 8)
        self.shared, self.again = nn.Embedding(20, 8), nn.Embedding(20, 8)
        self.again.weight = self.shared.weight
        self.fixed = nn.Embedding(9, 8)
        self.fixed.weight.requires_grad_(False)
        self.inner, self.norm, self.head = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 30, bias=False)
        self.head.weight = self.tied.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.alone(ids) + self.tied(ids % 30) + self.shared(ids % 20) * self.again(ids % 7) + self.fixed(ids % 9)
        logits: torch.Tensor = self.head(self.norm(torch.tanh(self.inner(x))))
        return logits


def recipe(**values: Any) -> Recipe:
    return Recipe(
        **{"epochs": 1, "batch_size": 1, "learning_rate": 1e-2, "weight_decay": 0.3, "epsilon": 1e-4} | values
    )


def models(*, dtype: torch.dtype = torch.float32, tables: bool = True, **values: Any) -> tuple[Net, Net, Weights]:
    """Return a model, its copy with `Lookup` modules, and the copy's weights."""
    torch.manual_seed(0)
    plain = Net()
    ours = copy.deepcopy(plain)
    lookups = []
    if tables:
        for name in ("alone", "tied", "shared", "again"):
            lookups.append(Lookup(getattr(ours, name)))
            setattr(ours, name, lookups[-1])
    return plain, ours, Weights(ours, lookups=lookups, recipe=recipe(**values), dtype=dtype)


def batches(steps: int, accumulation: int) -> Iterator[list[Batch]]:
    """Generate micro-batches with different ids in every step, some repeated, and different numbers of tokens."""
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        sizes = [2 + (step + part) % 5 for part in range(accumulation)]
        yield [
            (torch.randint(0, 50, (n,), generator=generator), torch.randint(0, 30, (n,), generator=generator))
            for n in sizes
        ]


def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]).float(), batch[1], reduction="sum")


def adamw(model: nn.Module, settings: Recipe) -> AdamW:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon)


def step(weights: Weights, *, learning_rate: float) -> None:
    for group in weights.optimizer.param_groups:
        group["lr"] = learning_rate
    weights.step()


def ours_steps(model: nn.Module, weights: Weights, steps: Sequence[list[Batch]]) -> None:
    for number, micro_batches in enumerate(steps):
        for part, batch in enumerate(micro_batches):
            loss(model, batch).backward()
            weights.collect(first=part == 0)
        step(weights, learning_rate=1e-2 / (1 + number))


@pytest.mark.parametrize("tables", [True, False])
@pytest.mark.parametrize("max_grad_norm", [0.5, 1e6])  # gradients are around ten: clip always, never
@pytest.mark.parametrize("accumulation", [1, 3])
def test_weights_take_the_steps_of_adamw_with_clipping(tables: bool, max_grad_norm: float, accumulation: int) -> None:
    plain, ours, weights = models(tables=tables, max_grad_norm=max_grad_norm)
    settings = recipe(max_grad_norm=max_grad_norm)
    optimizer = adamw(plain, settings)
    parameters = [p for p in plain.parameters() if p.requires_grad]
    steps = list(batches(7, accumulation))
    for number, micro_batches in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (1 + number)
        for batch in micro_batches:
            loss(plain, batch).backward()
        norm = clip_grad_norm_(parameters, max_grad_norm)
        assert 0.5 < norm < 1e6
        optimizer.step()
        optimizer.zero_grad()
    ours_steps(ours, weights, steps)
    weights.release()

    expected, got = dict(plain.named_parameters()), dict(ours.named_parameters())
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        # Sums in another order: 1e-6 of a gradient, so at most 1e-6 / epsilon of a step of 1e-2.
        torch.testing.assert_close(got[name], value, rtol=1e-6, atol=2e-6, msg=lambda m, name=name: f"{name}: {m}")


def test_collect_leaves_nothing_of_the_previous_step() -> None:
    """The second step uses neither the rows nor most of the parameters of the first one."""
    _, ours, weights = models()
    (batch,) = next(batches(1, 1))
    loss(ours, batch).backward()
    weights.collect(first=True)
    assert float(weights.gradient.abs().sum()) > 0

    ours.norm.weight.sum().backward()
    weights.collect(first=True)

    assert float(weights.gradient.sum()) == 8.0, "gradients of the first step are left"
    assert float(weights._norm()) == pytest.approx(8.0**0.5, rel=1e-6)


def test_bf16_weights_are_rounded_for_computing_and_exact_in_float32() -> None:
    plain, ours, weights = models(dtype=torch.bfloat16)
    expected = {name: value.detach().clone() for name, value in plain.named_parameters()}

    computed = {name: value.dtype for name, value in ours.named_parameters()}
    assert computed["alone.weight"] == torch.float32, "an untied table stays in float32"
    assert {dtype for name, dtype in computed.items() if not name.startswith(("alone", "shared"))} == {torch.bfloat16}
    with weights.in_float32():
        for name, value in ours.named_parameters():
            assert torch.equal(expected[name], value), name
    assert {name: value.dtype for name, value in ours.named_parameters()} == computed


def test_every_lookup_of_a_bf16_model_returns_bf16() -> None:
    """mT5 uses one untied embedding in three modules."""
    _, ours, _ = models(dtype=torch.bfloat16)
    ids = torch.tensor([1, 2])

    assert {getattr(ours, name)(ids).dtype for name in ("alone", "tied", "shared", "again")} == {torch.bfloat16}


def test_a_bf16_step_is_adamws_step_with_rounded_gradients() -> None:
    plain, ours, weights = models(dtype=torch.bfloat16, max_grad_norm=1e6)
    optimizer = adamw(plain, recipe())
    (batch,) = next(batches(1, 1))
    loss(plain, batch).backward()
    optimizer.step()
    loss(ours, batch).backward()
    weights.collect(first=True)
    step(weights, learning_rate=1e-2)
    weights.release()

    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    for name, value in plain.named_parameters():
        # The first step of Adam is the learning rate times the sign of the gradient, where that is well above epsilon.
        # Where rounding changes the sign of a small gradient, the difference is two steps.
        assert float((value - dict(ours.named_parameters())[name]).detach().abs().max()) <= 2 * 1e-2 + 1e-6, name
    moved = torch.cat([(p - q).detach().flatten() for p, q in zip(plain.parameters(), ours.parameters(), strict=True)])
    assert float((moved.abs() < 1e-4).float().mean()) > 0.95


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_steps_are_not_lost_to_rounding(dtype: torch.dtype) -> None:
    """A thousand steps of 1e-6 from a weight of one. In bfloat16 no such step would change it."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    weights = Weights(layer, lookups=[], recipe=recipe(weight_decay=0.0, learning_rate=1e-6), dtype=dtype)
    for _ in range(1000):
        layer(torch.ones(1, 1, dtype=dtype)).sum().backward()
        weights.collect(first=True)
        step(weights, learning_rate=1e-6)
    weights.release()

    # Each step is 1e-6 / (1 + epsilon). Near one, float32 has a spacing of 6e-8, so a step is off by up to 3%.
    assert layer.weight.item() == pytest.approx(1 - 1e-3, abs=4e-5)


def test_release_gives_parameters_their_own_memory_and_keeps_ties() -> None:
    _, ours, weights = models(dtype=torch.bfloat16)
    weights.release()
    weights.master.fill_(7.0)

    assert not any(bool((p == 7.0).any()) for p in ours.parameters())
    assert ours.head.weight is ours.tied.weight
    assert ours.shared.weight is ours.again.weight
    for parameter in ours.parameters():
        assert parameter.untyped_storage().nbytes() == 4 * parameter.numel()


def test_training_continues_from_a_saved_optimizer_state() -> None:
    steps = list(batches(4, 1))
    _, whole, weights = models()
    ours_steps(whole, weights, steps)
    _, half, first = models()
    ours_steps(half, first, steps[:2])
    state = copy.deepcopy(first.optimizer.state_dict())
    first.release()
    second = Weights(
        half, lookups=[half.alone, half.tied, half.shared, half.again], recipe=recipe(), dtype=torch.float32
    )
    second.optimizer.load_state_dict(state)
    for number, (batch,) in enumerate(steps[2:], start=2):
        loss(half, batch).backward()
        second.collect(first=True)
        step(second, learning_rate=1e-2 / (1 + number))

    for expected, got in zip(whole.parameters(), half.parameters(), strict=True):
        assert torch.equal(expected, got)
