"""How fast this machine is now, for this process: matrix products, attention and memory, each tried for a moment.

What a data sheet promises is not what a power limit, a slice of a GPU, two threads of a shared CPU or an emulated
bfloat16 give; so the peaks that a record's utilisation and floor are made of are measured, by the run's own process
with its threads and flags, right after training. A neighbour can only make a try slower: of several short ones the
fastest counts. Nothing here draws from torch's global generators or leaves a tensor behind.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from touchstone.engines.ranks import Ranks
from touchstone.fields import printable
from touchstone.records.efficiency import Rate, Rates

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIZES = {"cpu": (512, 768, 2048), "cuda": (2048, 4096, 8192)}
"""Of square matrices: from what a cache holds to what keeps all units busy."""
GEMM_SECONDS = 0.25
"""Of a precision. All in all a probe takes about a second on a machine that is not slowed down."""
ATTENTION_SECONDS = 0.1
MEMORY_SECONDS = 0.15
"""Of each of two ways to go over memory."""
LEAST_TRIES = 3
LEAST_SECONDS = 2e-3
"""Of a try: many calls, where one takes less, so that starting them is not what is measured."""
STATE_BYTES = (2**16, 2**28)
"""The least and the most that the memory's rate is measured with. More than the most is as fast, or slower."""


def measure_rates(device: str, *, precision: str, state_bytes: int) -> Rates:
    """The rates of a device in a precision.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`, `bf16` or `fp16`. In half precision the products of float32 are tried, too: where a device is
            faster at these, a run may use them.
        state_bytes: what an optimizer goes over in a step. Memory's rate is that of going over so much: a small model's
            state stays in a cache.
    """
    where = torch.device(device)
    if where.type not in SIZES:
        return Rates(reason=f"no probe for device {device}")
    if where.type == "cpu" and precision == "fp16":
        return Rates(reason="fp16 is not trained on cpu")
    dtypes = [DTYPES[name] for name in dict.fromkeys((precision, "fp32"))]
    try:
        with _undisturbing(where), torch.no_grad():
            return Rates(
                gemm=max((_gemm(where, dtype) for dtype in dtypes), key=lambda rate: rate.per_second),
                attention=_attention(where, dtypes[0]),
                memory=_memory(where, min(max(state_bytes, STATE_BYTES[0]), STATE_BYTES[1])),
            )
    except (RuntimeError, MemoryError) as error:  # too little memory, a kernel that is not there
        return Rates(reason=printable(f"the probe failed: {type(error).__name__}: {error}"))


def together(rates: Rates, *, ranks: Ranks) -> Rates:
    """Of all the processes that train one model: the sums of what each has measured, all at the same time."""
    if ranks.world == 1:
        return rates
    found = (rates.gemm, rates.attention, rates.memory)
    known = ranks.sum([rate is not None for rate in found])
    sums = ranks.sum([0.0 if rate is None else rate.per_second for rate in found])
    gemm, attention, memory = (
        Rate(per_second=total, source=f"{rate.source}; the sum of {ranks.world} ranks")
        if rate is not None and count == ranks.world
        else None
        for rate, count, total in zip(found, known, sums, strict=True)
    )
    missing = None if min(known) == ranks.world else rates.reason or "another rank has none"
    return Rates(gemm=gemm, attention=attention, memory=memory, reason=missing)


def _gemm(device: torch.device, dtype: torch.dtype) -> Rate:
    """FLOP/s of x W^T, as a linear layer has it: the best of the sizes."""
    best, size = 0.0, 0
    started = time.perf_counter()
    for n in SIZES[device.type]:
        left = GEMM_SECONDS - (time.perf_counter() - started)
        if best and LEAST_TRIES * 2 * n**3 / best > left:  # a slow device: a larger one would take too long
            break
        x, w = _random(device, dtype, n, n), _random(device, dtype, n, n)
        rate = 2 * n**3 / _fastest(partial(linear, x, w), device, seconds=left / 2)
        best, size = max((best, size), (rate, n))
    return Rate(per_second=best, source=f"measured: {size} x {size} products in {_name(dtype)}{_threads(device)}")


def _attention(device: torch.device, dtype: torch.dtype) -> Rate:
    """FLOP/s of attention forward and backward, by its six products."""
    rows, heads, length, width = (2, 12, 256, 64) if device.type == "cpu" else (32, 12, 512, 64)
    q, k, v = (_random(device, dtype, rows, heads, length, width).requires_grad_() for _ in range(3))
    gradient = _random(device, dtype, rows, heads, length, width)

    def both() -> Any:
        with torch.enable_grad():
            return torch.autograd.grad(scaled_dot_product_attention(q, k, v), (q, k, v), gradient)

    rate = 12 * rows * heads * length**2 * width / _fastest(both, device, seconds=ATTENTION_SECONDS)
    shape = f"{rows} x {heads} x {length} x {width}"
    return Rate(
        per_second=rate, source=f"measured: sdpa of {shape} with its gradient in {_name(dtype)}{_threads(device)}"
    )


def _memory(device: torch.device, state_bytes: int) -> Rate:
    """Bytes/s, read and written: the better of a copy and of a fused AdamW, both over `state_bytes`."""
    # Four streams at addresses that differ by a power of two would get in each other's way in the caches.
    quarter = state_bytes // 2**14 * 2**10 + 272
    state = torch.ones(4 * quarter, device=device)
    half = state[: 2 * quarter]
    copy = 4 * state.numel() / _fastest(lambda: half.copy_(state[2 * quarter :]), device, seconds=MEMORY_SECONDS)
    parameter, gradient, first, second = ([part] for part in state.chunk(4))
    step = [torch.ones((), device=device)]

    def adamw() -> None:
        torch._fused_adamw_(
            parameter, gradient, first, second, [], step, lr=1e-3, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8,
            amsgrad=False, maximize=False,
        )  # fmt: skip

    update = 28 * quarter / _fastest(adamw, device, seconds=MEMORY_SECONDS)
    what = "copy" if copy > update else "fused AdamW"
    size = f"{state_bytes / 2**20:.3g} MiB"
    return Rate(per_second=max(copy, update), source=f"measured: {what} over {size}{_threads(device)}")


def _fastest(call: Callable[[], Any], device: torch.device, *, seconds: float) -> float:
    """Seconds of a call in the fastest of several tries, `LEAST_TRIES` and as many more as fit into `seconds`."""
    call()  # what is set up at the first call
    once = _timed(call, device, calls=1)
    calls = min(max(math.ceil(LEAST_SECONDS / max(once, 1e-9)), 1), 1000)
    best, tries, end = math.inf, 0, time.perf_counter() + seconds
    while tries < LEAST_TRIES or time.perf_counter() < end:
        best = min(best, _timed(call, device, calls=calls))
        tries += 1
    return best


def _timed(call: Callable[[], Any], device: torch.device, *, calls: int) -> float:
    """Seconds of one of so many calls in a row."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - started) / calls
    torch.cuda.synchronize(device)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    first.record()
    for _ in range(calls):
        call()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3 / calls


@contextmanager
def _undisturbing(device: torch.device) -> Iterator[None]:
    """On the device; memory that was taken for the probe is given back."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        try:
            yield
        finally:
            torch.cuda.empty_cache()


def _random(device: torch.device, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Not zeros: a GPU multiplies these faster, for they draw less power."""
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(shape, device=device, generator=generator).to(dtype)


def _name(dtype: torch.dtype) -> str:
    return next(name for name, other in DTYPES.items() if other is dtype)


def _threads(device: torch.device) -> str:
    if device.type != "cpu":
        return ""
    count = torch.get_num_threads()
    return f", {count} thread" + ("s" if count > 1 else "")
