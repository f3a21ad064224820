"""`Head` against torch's cross entropy: losses, gradients and hits."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear

from touchstone.packed import modules
from touchstone.packed.modules import Head

# Float32 sums of 24 terms in another order, and exp of a logarithm instead of a quotient: some 1e-7 of numbers around
# one. A wrong label or a missing bias is off by at least 1e-2.
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
    """Return losses, and the gradients of a weighted sum of them."""
    weights = torch.linspace(-1, 2, len(losses))
    parameters = [x, *layer.parameters()]
    return [losses.detach(), *torch.autograd.grad((losses * weights).sum(), parameters)]


def by_head(x: torch.Tensor, layer: nn.Linear, labels: torch.Tensor, **how: torch.Tensor) -> list[torch.Tensor]:
    head = Head(layer)
    with head.scoring(labels, **how):
        losses = head(x[None])
    assert tuple(losses.shape) == (1, len(labels), 1)
    assert losses.dtype == torch.float32
    return outcome(x, layer, losses[0, :, 0])


def by_torch(
    x: torch.Tensor, layer: nn.Linear, labels: torch.Tensor, extra: torch.Tensor | None = None
) -> list[torch.Tensor]:
    logits = linear(x, layer.weight, layer.bias)
    logits = logits if extra is None else logits + extra
    return outcome(x, layer, cross_entropy(logits.float(), labels, ignore_index=-100, reduction="none"))


def assert_equal(expected: list[torch.Tensor], got: list[torch.Tensor], *, within: float = ROUNDING) -> None:
    assert len(got) == len(expected)
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(other, one, atol=within, rtol=within)


@pytest.mark.parametrize(("bias", "extra", "ignored"), list(product([True, False], repeat=3)))
def test_head_has_the_losses_and_gradients_of_cross_entropy(bias: bool, extra: bool, ignored: bool) -> None:
    x, layer, labels = case(bias=bias)
    if ignored:
        labels[[0, 4, 5]] = -100
    more = torch.randn(37) * 3 if extra else None

    got = by_head(x, layer, labels, **({} if more is None else {"extra_bias": more}))
    assert_equal(by_torch(x, layer, labels, more), got)
    assert not ignored or got[0][[0, 4, 5]].tolist() == [0.0, 0.0, 0.0]
    assert not ignored or got[1][[0, 4, 5]].eq(0).all(), "an ignored label has a gradient"


@pytest.mark.parametrize("cached", [1, 36, 37, 100, 37 * 4])  # less than a row, one row, several with a remainder
def test_head_gives_the_same_losses_for_slices_of_any_size(cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, layer, labels = case()
    labels[7] = -100
    expected = by_torch(x, layer, labels)
    monkeypatch.setattr(modules, "CACHED_ELEMENTS", cached)

    assert_equal(expected, by_head(x, layer, labels))


@pytest.mark.parametrize("labels", [[], [-100, -100]])
def test_head_without_labels_has_zero_gradients(labels: list[int]) -> None:
    x, layer, _ = case(tokens=len(labels))
    losses, *gradients = by_head(x, layer, torch.tensor(labels, dtype=torch.int64))

    assert losses.tolist() == [0.0] * len(labels)
    assert all(gradient.eq(0).all() for gradient in gradients)


# Without a gradient ---------------------------------------------------------------------------------------------------


def scores(x: torch.Tensor, layer: nn.Linear, labels: torch.Tensor, **how: torch.Tensor) -> torch.Tensor:
    """Return (M, 2) losses and hits."""
    head = Head(layer)
    with head.scoring(labels, hits=True, **how):
        found = head(x[None])[0]
    assert (tuple(found.shape), found.dtype, found.requires_grad) == ((len(labels), 2), torch.float32, False)
    return found


def assert_scores(logits: torch.Tensor, labels: torch.Tensor, got: torch.Tensor, *, within: float = ROUNDING) -> None:
    """Compare with the definition."""
    expected = cross_entropy(logits.float(), labels, ignore_index=-100, reduction="none")
    torch.testing.assert_close(got[:, 0], expected, atol=within, rtol=within)
    assert got[:, 1].bool().tolist() == (logits.argmax(-1) == labels).tolist()


slices = pytest.mark.parametrize(("words", "cached"), [(1, 1), (5, 20), (36, 2**20), (37, 37 * 4), (1024, 2**20)])


@slices
@pytest.mark.parametrize(("bias", "extra"), list(product([True, False], repeat=2)))
def test_head_without_a_gradient_has_the_losses_and_hits_of_all_logits(
    bias: bool, extra: bool, words: int, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "CACHED_WORDS", words)
    monkeypatch.setattr(modules, "CACHED_ELEMENTS", cached)
    x, layer, labels = case(bias=bias)
    more = torch.randn(37) * 3 if extra else torch.zeros(37)
    logits = (layer(x) + more).detach()
    labels[::3] = logits[::3].argmax(-1)  # by chance there would be hardly any hits
    labels[[0, 4, 5]] = -100
    got = scores(x, layer, labels, **({"extra_bias": more} if extra else {}))

    assert_scores(logits, labels, got)
    assert 2 < got[:, 1].sum() < 8, "hits must be mixed for a test"
    with torch.no_grad():
        losses_only = losses_without_gradient(x, layer, labels, **({"extra_bias": more} if extra else {}))
    assert torch.equal(got[:, 0], losses_only)


def losses_without_gradient(
    x: torch.Tensor, layer: nn.Linear, labels: torch.Tensor, **how: torch.Tensor
) -> torch.Tensor:
    head = Head(layer)
    with head.scoring(labels, **how):
        found: torch.Tensor = head(x[None])
    assert tuple(found.shape) == (1, len(labels), 1)
    return found[0, :, 0]


@slices
def test_head_counts_only_the_first_of_equal_logits_as_a_hit(
    words: int, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits are -1, 0 and 1, many times in each row: ties are in the label's slice, before it and after it."""
    monkeypatch.setattr(modules, "CACHED_WORDS", words)
    monkeypatch.setattr(modules, "CACHED_ELEMENTS", cached)
    torch.manual_seed(0)
    layer = nn.Linear(64, 37, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-1, 2, (37, 64)))
    x = torch.eye(64).repeat_interleave(37, 0)  # each column of the weights gives the logits of 37 rows
    labels = torch.arange(37).repeat(64)  # each word is the label of one of them
    got = scores(x, layer, labels)

    assert_scores(layer(x).detach(), labels, got)
    assert got[:, 1].sum() == 64, "each of 64 rows of logits has one first maximum"


@slices
def test_forbidden_words_leave_losses_finite(words: int, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a slice of nothing but forbidden words, logit minus maximum is NaN."""
    monkeypatch.setattr(modules, "CACHED_WORDS", words)
    monkeypatch.setattr(modules, "CACHED_ELEMENTS", cached)
    x, layer, labels = case()
    forbidden = torch.zeros(37)
    forbidden[:10] = -torch.inf
    labels = labels.clamp(min=10)
    got = scores(x, layer, labels, extra_bias=forbidden)

    assert got.isfinite().all()
    assert_scores((layer(x) + forbidden).detach(), labels, got)


def test_large_losses_are_exact_without_a_gradient() -> None:
    """A very unlikely label has probability zero in float32, but a finite loss."""
    x, layer, labels = case()
    with torch.no_grad():
        layer.weight.mul_(1e4)
    got = scores(x, layer, labels)

    # Logits around 1e4 are rounded by 1e-3.
    assert_scores(layer(x).detach(), labels, got, within=1e-2)
    assert got[:, 0].max() > 1e3


def test_bf16_losses_and_hits_are_those_of_the_rounded_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "CACHED_WORDS", 8)
    x, layer, labels = case(tokens=400, dtype=torch.bfloat16)
    logits = layer(x).detach()
    labels[::2] = logits[::2].argmax(-1)
    tied = (logits == logits.amax(-1, keepdim=True)).sum(1) > 1
    got = scores(x, layer, labels)

    assert tied.any(), "rounding to 8 bits should make some maxima equal"
    assert_scores(logits, labels, got)


@pytest.mark.parametrize("labels", [[], [-100, -100]])
def test_head_without_labels_has_zero_losses_and_no_hits(labels: list[int]) -> None:
    x, layer, _ = case(tokens=len(labels))

    assert scores(x, layer, torch.tensor(labels, dtype=torch.int64)).tolist() == [[0.0, 0.0]] * len(labels)


def test_head_without_a_gradient_never_holds_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "CACHED_WORDS", 8)
    monkeypatch.setattr(modules, "CACHED_ELEMENTS", 32)
    x, layer, labels = case()
    whole, sizes = nn.functional.linear, []

    def watched(*args: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(whole(*args).shape))
        return whole(*args)

    monkeypatch.setattr(nn.functional, "linear", watched)
    scores(x, layer, labels)

    assert set(sizes) == {(4, 8), (4, 5), (3, 8), (3, 5)}


# Edge cases -----------------------------------------------------------------------------------------------------------


def test_logits_far_apart_have_finite_losses_and_gradients() -> None:
    x, layer, labels = case()
    with torch.no_grad():
        layer.weight.mul_(1e4)

    got = by_head(x, layer, labels)
    assert all(part.isfinite().all() for part in got)
    # Logits around 1e4 are rounded by 1e-3.
    torch.testing.assert_close(got[0], by_torch(x, layer, labels)[0], rtol=1e-5, atol=1e-2)


def test_a_nearly_certain_label_still_has_a_gradient_in_bf16() -> None:
    """The gradient at the label is p - 1. If p = 0.9997 were rounded to 8 bits first, it would be 1, and p - 1 zero."""
    layer = nn.Linear(1, 2, bias=False).bfloat16()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [0.0]]))
    x = torch.tensor([[8.0]], dtype=torch.bfloat16, requires_grad=True)
    gradient = by_head(x, layer, torch.tensor([0]))[2].float()

    # 1 - p, times x and the weight -1 that `outcome` gives to a single loss; two roundings of 2^-9 each.
    expected = torch.sigmoid(torch.tensor(-8.0)).item() * 8
    assert gradient[:, 0].tolist() == pytest.approx([expected, -expected], rel=2**-8)


def test_bf16_losses_and_gradients_are_exact_up_to_rounding() -> None:
    x, layer, labels = case(tokens=64, dtype=torch.bfloat16)
    exact_layer = nn.Linear(24, 37).requires_grad_()
    exact_layer.load_state_dict(layer.state_dict())
    exact_x = x.detach().float().requires_grad_()
    labels[3] = -100
    expected, got = by_torch(exact_x, exact_layer, labels), by_head(x, layer, labels)

    half_ulp = 2.0**-9  # of bfloat16's 8 bits of mantissa
    logit = float(linear(exact_x, exact_layer.weight, exact_layer.bias).detach().abs().max()) * half_ulp
    # A logit is rounded once. A loss is the difference of two functions of the logits with slopes of at most one.
    assert float((expected[0] - got[0]).abs().max()) <= 2 * logit + 1e-5
    # Probabilities are off by a factor e^(2 logit) and two roundings, their own and those of products with the weight
    # (at most 2). Each of the 64 terms of a sum has that relative error, and the sum is rounded once more.
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


def test_a_tied_weight_gets_gradients_from_both_uses() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(37, 24)
    layer = nn.Linear(24, 37, bias=False)
    layer.weight = table.weight
    ids, labels = torch.tensor([3, 5, 3]), torch.tensor([1, 5, -100])
    head = Head(layer)
    with head.scoring(labels):
        (got,) = torch.autograd.grad(head(table(ids)[None]).sum(), [table.weight])
    losses = cross_entropy(layer(table(ids)), labels, ignore_index=-100, reduction="sum")

    assert head.weight is table.weight
    torch.testing.assert_close(got, torch.autograd.grad(losses, [table.weight])[0], atol=ROUNDING, rtol=ROUNDING)


def test_head_outside_scoring_is_the_layer_it_replaced_even_after_an_error() -> None:
    x, layer, labels = case()
    head = Head(layer)
    with pytest.raises(RuntimeError, match="lost"), head.scoring(labels):
        raise RuntimeError("lost")

    assert torch.equal(layer(x), head(x))
    assert layer.state_dict().keys() == head.state_dict().keys()


def test_head_refuses_a_label_outside_the_vocabulary() -> None:
    x, layer, labels = case()
    labels[2] = 37
    head = Head(layer)
    for hits in (False, True):
        with head.scoring(labels, hits=hits), pytest.raises((RuntimeError, IndexError), match="out of bounds"):
            head(x[None])
