"""The packed engine on a CUDA device. What needs one is skipped without it; what does not runs anywhere, on `meta`
tensors: they have shapes and no numbers, so whoever waits for a number fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from touchstone.engines import load_engine
from touchstone.engines.evaluation import to_device
from touchstone.engines.order import training_batches
from touchstone.engines.ranks import Ranks
from touchstone.engines.training import Execution, Precision, Recipe
from touchstone.packed import attention, grouping, layout, lookup, recording
from touchstone.packed import engine as packed
from touchstone.packed.layout import Layout, laid_out
from touchstone.packed.recording import Pass
from touchstone.packed.unpadded import Unpadded
from touchstone.packed.weights import Weights
from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import Batch, Pipeline
from touchstone.suite.reproducibility.comparing import assert_close_losses, assert_same_bits
from touchstone.suite.reproducibility.tiny import tiny_pipeline

META = torch.device("meta")
RECIPE = Recipe(epochs=2, batch_size=4, accumulation=2, learning_rate=2e-3, warmup_steps=2, weight_decay=0.01)
LENGTHS = [7, 1, 30, 64, 12]

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
every_task = pytest.mark.parametrize("task", PIPELINES)
both_precisions = pytest.mark.parametrize("precision", ["fp32", "bf16"])


# Anywhere -------------------------------------------------------------------------------------------------------------


class Watch(TorchDispatchMode):
    """Refuses an operator that takes a tensor of the host where others are on the device: a copy would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        kinds = {t.device.type for t in tree_leaves((args, kwargs, found)) if isinstance(t, torch.Tensor)}
        assert self.allowed or kinds != {"cpu", "meta"}, f"{func} copies from the host"
        return found

    @contextmanager
    def copies_allowed(self) -> Iterator[None]:
        self.allowed = True
        yield
        self.allowed = False


@every_task
@both_precisions
@pytest.mark.parametrize("recorded", [False, True])
def test_a_packed_step_waits_for_nothing(
    task: str, precision: Precision, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the operators of CUDA, as far as these can be had without it."""
    watch = Watch()

    def copied(array: Any, device: torch.device) -> torch.Tensor:  # where there is CUDA, from pinned memory
        with watch.copies_allowed():
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    for module in (layout, grouping):
        monkeypatch.setattr(module, "on_device", copied)
    monkeypatch.setattr(attention, "_has_kernel", lambda query: query.dtype == torch.bfloat16)
    monkeypatch.setattr(lookup, "LARGE", 2**15 if recorded else 1)
    # The fused AdamW has shapes for `meta`, but a list of devices on which it may be asked for.
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda *_, **__: None)
    pipeline = tiny_pipeline(task)
    plain = pipeline.model().to(META)  # type: ignore[arg-type]
    plain.tie_weights()  # what was one has become several, which on a GPU it does not
    model = Unpadded(plain).train()
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    weights = Weights(model.module, lookups=model.lookups, recipe=RECIPE, dtype=dtype)
    assert model.lookups
    recordings = []

    def recorder(forward: Pass, backward: Pass) -> tuple[Pass, Pass]:
        recordings.append(forward)
        return forward, backward

    if recorded:
        model.record(recorder, rows=4)
    for number, batch in enumerate(batches(pipeline, count=4)):
        masks = {"mask": batch["attention_mask"], "decoder_mask": batch.get("decoder_mask")}
        model.layout = Layout.of(**masks, device=META, size=model.size)
        moved = to_device(batch, META)
        with watch:
            loss = pipeline.loss(model, moved) / 7
            loss.backward()  # type: ignore[no-untyped-call]
            weights.collect(first=number % 2 == 0)
            if number % 2:
                weights.step()

    assert loss.shape == ()
    assert loss.dtype == torch.float32
    # What float32 is attended to with, groups of rows, and T5's bias are known to the host alone.
    assert bool(recordings) == (recorded and precision == "bf16" and task != "summarization")


def test_the_kernel_for_packed_rows_has_the_derivative_that_is_relied_on() -> None:
    q, k, v = (torch.randn(1, 2, 9, 16, dtype=torch.bfloat16, device=META, requires_grad=True) for _ in range(3))
    ends = torch.zeros(3, dtype=torch.int32, device=META)
    output = attention._by_kernel(q, k, v, (ends, 5, ends, 5), dropout=0.1, causal=True, scale=0.3)
    output.backward(torch.empty_like(output))

    assert output.shape == (1, 9, 2, 16)
    assert [q.shape] * 3 == [x.grad.shape for x in (q, k, v) if x.grad is not None]


# With CUDA ------------------------------------------------------------------------------------------------------------


@needs_cuda
@every_task
def test_on_cuda_packed_losses_are_the_trainers_without_dropout(task: str) -> None:
    runs = [
        load_engine(name).train(
            tiny_pipeline(task, dropout=0.0), recipe=RECIPE, execution=Execution(seed=7, device="cuda")
        )
        for name in ("trainer", "packed")
    ]

    assert_close_losses(*runs, within=1e-5, what="trainer and packed")  # float32: sums in another order


@needs_cuda
@every_task
@both_precisions
def test_on_cuda_the_same_seed_gives_packed_the_same_bits(task: str, precision: Precision) -> None:
    first, second = (
        load_engine("packed").train(
            tiny_pipeline(task), recipe=RECIPE, execution=Execution(seed=7, device="cuda", precision=precision)
        )
        for _ in range(2)
    )

    assert_same_bits(first, second, what="a second run with the same seed")


@needs_cuda
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [16, 64])
def test_on_cuda_the_kernel_attends_as_the_groups_do(width: int, causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, grouped, by_kernel = attended("cuda", width=width, causal=causal, monkeypatch=monkeypatch)
    for name, true, plain, fast in zip(("output", "dQ", "dK", "dV"), exact, grouped, by_kernel, strict=True):
        # The kernel's own authors' measure: at most twice as far from the truth as plain arithmetic in bfloat16.
        error = (plain - true).abs().max()
        assert (fast - true).abs().max() <= 2 * error + 1e-5, name


def attended(
    device: str, *, width: int, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Output and gradients: in groups in float32, in groups in bfloat16, and by the kernel in bfloat16."""
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    rows = Layout.of(mask, device=torch.device(device))
    module = torch.nn.Module()
    module.is_causal = causal
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(1, 4, sum(LENGTHS), width, generator=generator).bfloat16() for _ in range(4)]
    found = []
    for dtype, kernel in ((torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)):
        with monkeypatch.context() as patch, laid_out(rows):
            if not kernel:
                patch.setattr(attention, "_has_kernel", lambda query: False)
            q, k, v = (x.clone().to(device, dtype).requires_grad_() for x in given[:3])
            output, _ = attention.packed_attention(module, q, k, v, None)
            output.backward(given[3].transpose(1, 2).to(device, dtype))
        gradients = [x.grad for x in (q, k, v) if x.grad is not None]
        found.append([x.detach().float() for x in (output, *gradients)])
    return found[0], found[1], found[2]


@needs_cuda
@pytest.mark.parametrize("task", ["token-classification", "question-answering"])
@both_precisions
def test_on_cuda_a_row_does_not_see_its_neighbour(task: str, precision: Precision) -> None:
    assert_rows_apart(task, precision, device=torch.device("cuda"))


def assert_rows_apart(task: str, precision: Precision, *, device: torch.device) -> None:
    pipeline = tiny_pipeline(task)
    model = Unpadded(pipeline.model().to(device)).eval()  # type: ignore[arg-type]
    if precision == "bf16":
        model.to(torch.bfloat16)
    batch = to_device(batches(pipeline, count=1)[0], device)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
    row = 1
    others = [number for number in range(len(inputs["input_ids"])) if number != row]
    changed = inputs["input_ids"].clone()
    changed[row] = changed[row].flip(0) if inputs["attention_mask"][row].all() else changed[row].roll(1)
    with torch.inference_mode():
        before, after = (model(**inputs | {"input_ids": ids})[0] for ids in (inputs["input_ids"], changed))

    assert not torch.equal(before[row], after[row])
    assert torch.equal(before[others], after[others])  # the same shapes, so the same sums in the same order


@needs_cuda
@every_task
def test_on_cuda_played_steps_have_the_losses_of_plain_ones(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[tuple[int, ...]] = []
    made = recording.Recording.__init__

    def watched(self: Any, owner: Any, given: Any, *, sizes: tuple[int, ...]) -> None:
        made(self, owner, given, sizes=sizes)
        recorded.append(sizes)

    monkeypatch.setattr(recording.Recording, "__init__", watched)
    played, plain = [], []
    for losses, recorder in ((played, recording.recorder_on), (plain, lambda device: None)):
        monkeypatch.setattr(packed, "recorder_on", recorder)
        run = packed.train(
            tiny_pipeline(task, dropout=0.0),
            recipe=RECIPE,
            execution=Execution(seed=7, device="cuda", precision="bf16"),
        )
        losses += [point.loss for point in run.trajectory]

    assert bool(recorded) == (task != "summarization")
    # Roundings of 2^-9, see `test_bf16_stays_close_and_leaves_a_float32_model`; another batch's tokens are off by more.
    np.testing.assert_allclose(plain, played, rtol=0.02)


class Quiet:
    """Lets the steps from the third to the last but one of the first epoch wait for nothing."""

    def __init__(self, pipeline: Pipeline, *, steps: int) -> None:
        self.calls, self.last = 0, steps * RECIPE.accumulation - 1
        self._loss = pipeline.loss
        pipeline.loss = self.loss  # type: ignore[method-assign]

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        if model.training:
            self.calls += 1
            if self.calls == 2 * RECIPE.accumulation + 1:
                torch.cuda.set_sync_debug_mode("error")
            if self.calls == self.last:
                torch.cuda.set_sync_debug_mode("default")
        return self._loss(model, batch)


@needs_cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch says that it does not see every wait yet
@every_task
@both_precisions
@pytest.mark.parametrize("deterministic", [True, False])
def test_on_cuda_a_packed_step_waits_for_nothing(
    task: str, precision: Precision, deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = recording.Recording._record

    def recorded(self: Any, device: torch.device) -> None:
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")  # to record a size is no step
        record(self, device)
        torch.cuda.set_sync_debug_mode(mode)

    monkeypatch.setattr(recording.Recording, "_record", recorded)
    pipeline = tiny_pipeline(task, train=64)
    quiet = Quiet(pipeline, steps=4)
    execution = Execution(seed=7, device="cuda", precision=precision, deterministic=deterministic)
    try:
        load_engine("packed").train(pipeline, recipe=RECIPE, execution=execution)
    finally:
        torch.cuda.set_sync_debug_mode("default")

    assert quiet.calls > quiet.last


def batches(pipeline: Pipeline, *, count: int) -> list[Batch]:
    loader = training_batches(pipeline, batch_size=4, seed=1, ranks=Ranks())
    return [batch for batch, _ in zip(loader, range(count), strict=False)]
