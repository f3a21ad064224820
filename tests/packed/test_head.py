"""The loss in place: torch's cross entropy, value and gradient."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear

from touchstone.packed import head as head_module
from touchstone.packed.head import Head

# Float32 sums of 24 terms in another order, and exp of a logarithm instead of a quotient: some 1e-7 of numbers
# around one; a wrong label or a missing bias is off by 1e-2 and more.
ROUNDING = 2e-6


def case(
    *, tokens: int = 11, vocabulary: int = 37, bias: bool = True, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(tokens, 24).to(dtype).requires_grad_()
    layer = nn.Linear(24, vocabulary, bias=bias).to(dtype)
    labels = torch.randint(0, vocabulary, (tokens,))
    return x, layer, labels


def outcome(x: torch.Tensor, layer: nn.Linear, losses: torch.Tensor) -> list[torch.Tensor]:
    """Losses, and the gradients of a weighted sum of them."""
    weights = torch.linspace(-1, 2, len(losses))
    parameters = [x, *layer.parameters()]
    return [losses.detach(), *torch.autograd.grad((losses * weights).sum(), parameters)]


def by_head(x: torch.Tensor, layer: nn.Linear, labels: torch.Tensor, **how: torch.Tensor) -> list[torch.Tensor]:
    head = Head(layer)
    with head.scores(labels, **how):
        losses = head(x[None])
    assert (1, len(labels), 1) == tuple(losses.shape)
    assert losses.dtype == torch.float32
    return outcome(x, layer, losses[0, :, 0])


def by_torch(
    x: torch.Tensor, layer: nn.Linear, labels: torch.Tensor, extra: torch.Tensor | None = None
) -> list[torch.Tensor]:
    logits = linear(x, layer.weight, layer.bias)
    logits = logits if extra is None else logits + extra
    return outcome(x, layer, cross_entropy(logits.float(), labels, ignore_index=-100, reduction="none"))


def assert_equal(expected: list[torch.Tensor], got: list[torch.Tensor], *, within: float = ROUNDING) -> None:
    assert len(expected) == len(got)
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(other, one, atol=within, rtol=within)


@pytest.mark.parametrize(("bias", "extra", "ignored"), list(product([True, False], repeat=3)))
def test_losses_and_gradients_are_those_of_cross_entropy(bias: bool, extra: bool, ignored: bool) -> None:
    x, layer, labels = case(bias=bias)
    if ignored:
        labels[[0, 4, 5]] = -100
    more = torch.randn(37) * 3 if extra else None

    got = by_head(x, layer, labels, **({} if more is None else {"extra_bias": more}))
    assert_equal(by_torch(x, layer, labels, more), got)
    assert not ignored or got[0][[0, 4, 5]].tolist() == [0.0, 0.0, 0.0]
    assert not ignored or got[1][[0, 4, 5]].eq(0).all(), "an ignored place teaches"


@pytest.mark.parametrize("cached", [1, 36, 37, 100, 37 * 4])  # less than a row, a row, several with a rest
def test_slices_of_any_size_give_the_same(cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, layer, labels = case()
    labels[7] = -100
    expected = by_torch(x, layer, labels)
    monkeypatch.setattr(head_module, "CACHED", cached)

    assert_equal(expected, by_head(x, layer, labels))


@pytest.mark.parametrize("labels", [[], [-100, -100]])
def test_no_labels_teach_nothing(labels: list[int]) -> None:
    x, layer, _ = case(tokens=len(labels))
    losses, *gradients = by_head(x, layer, torch.tensor(labels, dtype=torch.int64))

    assert [0.0] * len(labels) == losses.tolist()
    assert all(gradient.eq(0).all() for gradient in gradients)


# Without a gradient ---------------------------------------------------------------------------------------------------


def scores(x: torch.Tensor, layer: nn.Linear, labels: torch.Tensor, **how: torch.Tensor) -> torch.Tensor:
    """(M, 2) losses and hits."""
    head = Head(layer)
    with head.scores(labels, hits=True, **how):
        found = head(x[None])[0]
    assert ((len(labels), 2), torch.float32, False) == (tuple(found.shape), found.dtype, found.requires_grad)
    return found


def assert_scores(logits: torch.Tensor, labels: torch.Tensor, got: torch.Tensor, *, within: float = ROUNDING) -> None:
    """By the definition."""
    expected = cross_entropy(logits.float(), labels, ignore_index=-100, reduction="none")
    torch.testing.assert_close(got[:, 0], expected, atol=within, rtol=within)
    assert (logits.argmax(-1) == labels).tolist() == got[:, 1].bool().tolist()


slices = pytest.mark.parametrize(("words", "cached"), [(1, 1), (5, 20), (36, 2**20), (37, 37 * 4), (1024, 2**20)])


@slices
@pytest.mark.parametrize(("bias", "extra"), list(product([True, False], repeat=2)))
def test_without_a_gradient_losses_and_hits_are_those_of_all_logits(
    bias: bool, extra: bool, words: int, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_module, "WORDS", words)
    monkeypatch.setattr(head_module, "CACHED", cached)
    x, layer, labels = case(bias=bias)
    more = torch.randn(37) * 3 if extra else torch.zeros(37)
    logits = (layer(x) + more).detach()
    labels[::3] = logits[::3].argmax(-1)  # by chance hardly any would be right
    labels[[0, 4, 5]] = -100
    got = scores(x, layer, labels, **({"extra_bias": more} if extra else {}))

    assert_scores(logits, labels, got)
    assert 2 < got[:, 1].sum() < 8, "all alike tell nothing"
    with torch.no_grad():
        alone = by_head_without_gradient(x, layer, labels, **({"extra_bias": more} if extra else {}))
    assert torch.equal(got[:, 0], alone)


def by_head_without_gradient(
    x: torch.Tensor, layer: nn.Linear, labels: torch.Tensor, **how: torch.Tensor
) -> torch.Tensor:
    head = Head(layer)
    with head.scores(labels, **how):
        found: torch.Tensor = head(x[None])
    assert (1, len(labels), 1) == tuple(found.shape)
    return found[0, :, 0]


@slices
def test_of_several_likeliest_words_the_first_is_the_hit(
    words: int, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits are -1, 0 and 1, each many times in a row: in the label's slice, before it and after it."""
    monkeypatch.setattr(head_module, "WORDS", words)
    monkeypatch.setattr(head_module, "CACHED", cached)
    torch.manual_seed(0)
    layer = nn.Linear(64, 37, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-1, 2, (37, 64)))
    x = torch.eye(64).repeat_interleave(37, 0)  # each column of the weights is the logits of 37 rows
    labels = torch.arange(37).repeat(64)  # and each word is the label of one of them
    got = scores(x, layer, labels)

    assert_scores(layer(x).detach(), labels, got)
    assert got[:, 1].sum() == 64, "each of the logits has one first largest"


@slices
def test_words_that_may_not_be_leave_a_finite_loss(words: int, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of them alone has no largest logit to be taken from the others."""
    monkeypatch.setattr(head_module, "WORDS", words)
    monkeypatch.setattr(head_module, "CACHED", cached)
    x, layer, labels = case()
    banned = torch.zeros(37)
    banned[:10] = -torch.inf
    labels = labels.clamp(min=10)
    got = scores(x, layer, labels, extra_bias=banned)

    assert got.isfinite().all()
    assert_scores((layer(x) + banned).detach(), labels, got)


def test_losses_far_from_zero_are_as_exact_without_a_gradient() -> None:
    """A label that is next to impossible: its probability is zero in float32, its loss is not infinite."""
    x, layer, labels = case()
    with torch.no_grad():
        layer.weight.mul_(1e4)
    got = scores(x, layer, labels)

    # Rounding of logits around 1e4 is 1e-3.
    assert_scores(layer(x).detach(), labels, got, within=1e-2)
    assert got[:, 0].max() > 1e3


def test_in_bf16_losses_and_hits_are_those_of_its_rounded_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "WORDS", 8)
    x, layer, labels = case(tokens=400, dtype=torch.bfloat16)
    logits = layer(x).detach()
    labels[::2] = logits[::2].argmax(-1)
    tied = (logits == logits.amax(-1, keepdim=True)).sum(1) > 1
    got = scores(x, layer, labels)

    assert tied.any(), "rounded to 8 bits, some largest logits are met twice"
    assert_scores(logits, labels, got)


@pytest.mark.parametrize("labels", [[], [-100, -100]])
def test_no_labels_have_no_losses_and_no_hits(labels: list[int]) -> None:
    x, layer, _ = case(tokens=len(labels))

    assert [[0.0, 0.0]] * len(labels) == scores(x, layer, torch.tensor(labels, dtype=torch.int64)).tolist()


def test_scores_without_a_gradient_hold_no_table_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "WORDS", 8)
    monkeypatch.setattr(head_module, "CACHED", 32)
    x, layer, labels = case()
    whole, sizes = nn.functional.linear, []

    def watched(*args: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(whole(*args).shape))
        return whole(*args)

    monkeypatch.setattr(nn.functional, "linear", watched)
    scores(x, layer, labels)

    assert set(sizes) == {(4, 8), (4, 5), (3, 8), (3, 5)}


# What is there to trip over -------------------------------------------------------------------------------------------


def test_logits_far_apart_give_a_finite_loss_and_gradient() -> None:
    x, layer, labels = case()
    with torch.no_grad():
        layer.weight.mul_(1e4)

    got = by_head(x, layer, labels)
    assert all(part.isfinite().all() for part in got)
    # Rounding of logits around 1e4 is 1e-3; the gradient at the weights is as large as x.
    torch.testing.assert_close(got[0], by_torch(x, layer, labels)[0], rtol=1e-5, atol=1e-2)


def test_a_right_answer_that_is_nearly_certain_still_teaches_in_bf16() -> None:
    """The gradient at the right label is p - 1: rounded to 8 bits first, p = 0.9997 is 1, and nothing would be left."""
    layer = nn.Linear(1, 2, bias=False).bfloat16()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [0.0]]))
    x = torch.tensor([[8.0]], dtype=torch.bfloat16, requires_grad=True)
    gradient = by_head(x, layer, torch.tensor([0]))[2].float()

    # 1 - p, times x and the weight -1 that `outcome` gives a single loss; two roundings of 2^-9 each.
    expected = torch.sigmoid(torch.tensor(-8.0)).item() * 8
    assert [pytest.approx(value, rel=2**-8) for value in gradient[:, 0].tolist()] == [expected, -expected]


def test_bf16_is_as_close_as_its_digits_allow() -> None:
    x, layer, labels = case(tokens=64, dtype=torch.bfloat16)
    exact_layer = nn.Linear(24, 37).requires_grad_()
    exact_layer.load_state_dict(layer.state_dict())
    exact_x = x.detach().float().requires_grad_()
    labels[3] = -100
    expected, got = by_torch(exact_x, exact_layer, labels), by_head(x, layer, labels)

    half_ulp = 2.0**-9  # of bfloat16's 8 bits of mantissa
    logit = float(linear(exact_x, exact_layer.weight, exact_layer.bias).detach().abs().max()) * half_ulp
    # A logit is rounded once; a loss is the difference of two functions of logits with slopes of at most one.
    assert float((expected[0] - got[0]).abs().max()) <= 2 * logit + 1e-5
    # A probability is off by e^(2 logit) and by two roundings, of itself and of its product with the weight (at most
    # 2); each of the 64 terms of a sum is off by that much of itself, and the sum is rounded once more.
    relative = 2 * logit + 4 * half_ulp
    for one, other, terms in zip(
        expected[1:],
        got[1:],
        (
            2 * 2 * exact_layer.weight.detach().abs().max(),  # sum of |p - label| is at most 2
            64 * 2 * exact_x.detach().abs().max(),
            torch.tensor(64 * 2.0),
        ),
        strict=True,
    ):
        assert other.dtype == torch.bfloat16
        assert float((one - other.float()).abs().max()) <= relative * float(terms)


def test_a_tied_table_learns_from_both_of_its_uses() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(37, 24)
    layer = nn.Linear(24, 37, bias=False)
    layer.weight = table.weight
    ids, labels = torch.tensor([3, 5, 3]), torch.tensor([1, 5, -100])
    head = Head(layer)
    with head.scores(labels):
        (got,) = torch.autograd.grad(head(table(ids)[None]).sum(), [table.weight])
    losses = cross_entropy(layer(table(ids)), labels, ignore_index=-100, reduction="sum")

    assert head.weight is table.weight
    torch.testing.assert_close(got, torch.autograd.grad(losses, [table.weight])[0], atol=ROUNDING, rtol=ROUNDING)


def test_outside_it_is_the_layer_that_it_replaced_also_after_an_error() -> None:
    x, layer, labels = case()
    head = Head(layer)
    with pytest.raises(RuntimeError, match="lost"), head.scores(labels):
        raise RuntimeError("lost")

    assert torch.equal(layer(x), head(x))
    assert layer.state_dict().keys() == head.state_dict().keys()


def test_a_label_outside_the_vocabulary_is_refused() -> None:
    x, layer, labels = case()
    labels[2] = 37
    head = Head(layer)
    for hits in (False, True):
        with head.scores(labels, hits=hits), pytest.raises((RuntimeError, IndexError), match="out of bounds"):
            head(x[None])
