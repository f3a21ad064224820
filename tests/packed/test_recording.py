"""Recordings of a model's body, without a GPU: what a CUDA graph does, a tape of operators does on the host.

Of CUDA itself only the recorder (`CudaGraphs`) is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from touchstone.engines.training import Execution, Recipe, TrainingRun
from touchstone.packed import attention, recording
from touchstone.packed import engine as packed
from touchstone.packed import lookup as lookup_module
from touchstone.packed.fixed import FixedSegments, NotRecordable
from touchstone.packed.recording import Pass, Recordings, size_of
from touchstone.pipelines.pipeline import Pipeline
from touchstone.suite.reproducibility.comparing import assert_close_losses, assert_same_update
from touchstone.suite.reproducibility.tiny import tiny_pipeline

RECIPE = Recipe(epochs=5, batch_size=3, accumulation=2, learning_rate=2e-3, warmup_steps=2, weight_decay=0.01)
RECORDED = ["token-classification", "question-answering", "masked-lm", "translation", "causal-lm"]


class Tape(TorchDispatchMode):
    """Every operator with its very tensors. Played, they are asked for again and nothing else is: no line of Python,
    nothing that a batch has brought but what was copied to where they read."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.taken.append((func, args, kwargs or {}, found))
        return found

    def play(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, found in self.taken:
                for before, now in zip(tensors(found), tensors(func(*args, **kwargs)), strict=True):
                    if before.data_ptr() != now.data_ptr():  # neither a view nor in place
                        before.detach().copy_(now)


def tensors(found: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]


class Taped:
    """A recorder."""

    def __init__(self) -> None:
        self.recorded = self.played = 0

    def __call__(self, forward: Pass, backward: Pass) -> tuple[Pass, Pass]:
        self.recorded += 1
        tapes = []
        for asked in (forward, backward):
            with Tape() as tape:
                asked()
            tapes.append(tape)
        return self._counted(tapes[0].play), tapes[1].play

    def _counted(self, play: Pass) -> Pass:
        def counted() -> None:
            self.played += 1
            play()

        return counted


def by_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ends: tuple[torch.Tensor, int, torch.Tensor, int],
    *,
    dropout: float,
    causal: bool,
    scale: float,
) -> torch.Tensor:
    """The kernel's arithmetic from the kernel's arguments, with operators that a tape can hold."""
    query_ends, _, key_ends, _ = ends
    places = [torch.arange(x.shape[2]) for x in (query, key)]
    rows = [torch.searchsorted(e, p.int(), right=True) for e, p in zip((query_ends, key_ends), places, strict=True)]
    seen = rows[0][:, None] == rows[1]
    if causal:
        seen = seen & (places[1] <= places[0][:, None])
    scores = (query @ key.transpose(-1, -2) * scale).masked_fill(~seen, torch.finfo(torch.float32).min)
    weights = torch.softmax(scores, -1).masked_fill(~seen.any(1, keepdim=True), 0.0)
    return (weights @ value).transpose(1, 2)


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_has_kernel", lambda query: True)
    monkeypatch.setattr(attention, "_by_kernel", by_rows)


@pytest.fixture(params=[True, False], ids=["large tables", "small tables"])
def tables(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(lookup_module, "LARGE", 2**15)  # that of the words, not that of the positions


def train(pipe: Pipeline, *, recorder: Any, recipe: Recipe = RECIPE) -> TrainingRun:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "recorder_on", lambda device: recorder)
        return packed.train(pipe, recipe=recipe, execution=Execution(seed=7))


def assert_goes_plainly(pipe: Pipeline) -> None:
    taped = Taped()
    run = train(pipe, recorder=taped)

    assert (taped.recorded, taped.played) == (0, 0)
    assert run.trajectory


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("task", RECORDED)
def test_played_steps_have_the_losses_of_plain_ones(task: str) -> None:
    taped = Taped()
    plain, played = (train(tiny_pipeline(task, dropout=0.0), recorder=recorder) for recorder in (None, taped))

    steps = len(plain.trajectory)
    assert steps >= 20
    assert taped.recorded >= 1
    assert taped.played == steps * RECIPE.accumulation
    # Sums over more rows, some of them zero, in another order; a token of another batch is off by 1e-3 and more.
    assert_close_losses(plain, played, within=1e-5, what="plain and played")


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("task", RECORDED)
def test_played_updates_have_the_size_of_plain_ones(task: str) -> None:
    """With an epsilon that makes Adam nearly gradient descent: a gradient twice too large shows."""
    sensitive = {"epsilon": 1.0, "max_grad_norm": 1e6, "learning_rate": 0.1, "schedule": "constant", "epochs": 1.0}
    taped = Taped()
    runs = [
        train(tiny_pipeline(task, dropout=0.0), recorder=recorder, recipe=RECIPE.model_copy(update=sensitive))
        for recorder in (None, taped)
    ]

    assert taped.played >= 1
    assert_same_update(runs, within=2e-6, what=["plain", "played"])


def test_a_batch_of_a_known_size_is_played_and_one_of_a_new_size_recorded() -> None:
    taped = Taped()
    pipe = tiny_pipeline("token-classification", dropout=0.0)
    loss: Callable[..., torch.Tensor] = pipe.loss
    sizes = set()

    def watched(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        if model.training:
            sizes.add(size_of(batch["size"].tokens))
        return loss(model, batch)

    pipe.loss = watched  # type: ignore[method-assign]
    train(pipe, recorder=taped)

    assert len(sizes) > 1
    assert len(sizes) == taped.recorded


@pytest.mark.parametrize(("limit", "value"), [("MOST_TOKENS", 1), ("MOST_SIZES", 0)])
def test_beyond_the_limits_nothing_is_recorded(limit: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, limit, value)
    assert_goes_plainly(tiny_pipeline("token-classification", dropout=0.0))


def test_a_model_whose_attention_wants_more_than_rows_goes_plainly() -> None:
    """T5's bias by distance."""
    assert_goes_plainly(tiny_pipeline("summarization", dropout=0.0))


def test_attention_without_a_kernel_goes_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_has_kernel", lambda query: False)
    assert_goes_plainly(tiny_pipeline("token-classification", dropout=0.0))


def test_layers_that_are_left_out_at_random_are_not_recorded() -> None:
    pipe = tiny_pipeline("translation", dropout=0.0)
    make = pipe.model

    def dropping() -> Any:
        model = make()
        model.get_decoder().layerdrop = 0.5
        return model

    pipe.model = dropping  # type: ignore[method-assign]
    assert_goes_plainly(pipe)


def test_a_recording_that_fails_is_told_of_and_training_goes_on() -> None:
    def failing(forward: Pass, backward: Pass) -> tuple[Pass, Pass]:
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.warns(UserWarning, match=r"CUDA could not record BertModel: operation not permitted"):
        run = train(tiny_pipeline("token-classification", dropout=0.0), recorder=failing)
    plain = train(tiny_pipeline("token-classification", dropout=0.0), recorder=None)

    # Sums over more rows, as above: batches are filled up all the same.
    assert_close_losses(plain, run, within=1e-5, what="plain and not recorded")


def test_a_large_table_of_positions_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradient would be that of the batch that was recorded."""
    monkeypatch.setattr(lookup_module, "LARGE", 1)
    assert_goes_plainly(tiny_pipeline("token-classification", dropout=0.0))


def test_the_trained_model_has_its_own_forward_again() -> None:
    run = train(tiny_pipeline("token-classification"), recorder=Taped())
    assert run.model is not None

    assert "forward" not in vars(run.model.base_model)


@pytest.mark.parametrize("tokens", [*range(1, 70), 255, 256, 257, 1000, 4095, 4096, 4097])
def test_a_size_holds_its_tokens_and_wastes_a_fifth_at_most(tokens: int) -> None:
    size = size_of(tokens)

    assert tokens <= size
    assert size_of(size) == size, "a size is not one of its own"
    assert tokens * 1.25 + recording.LEAST_STEP > size


def test_there_are_few_sizes() -> None:
    assert len({size_of(tokens) for tokens in range(1, recording.MOST_TOKENS + 1)}) <= 32


def test_fixed_rows_refuse_to_tell_lengths() -> None:
    fixed = FixedSegments.of(size=32, rows=3, device=torch.device("cpu"))
    with pytest.raises(NotRecordable, match="lengths of rows"):
        _ = fixed.offsets


def test_a_body_without_a_head_around_it_is_left_alone() -> None:
    model: Any = tiny_pipeline("token-classification").model().base_model
    Recordings(model, rows=4, recorder=Taped()).remove()

    assert "forward" not in vars(model)
