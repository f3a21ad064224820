"""Machine rates: how fast this machine is now, for this process, at matrix products, attention and memory access.

The rates on a data sheet are not reached under a power limit, on a slice of a GPU, with two threads of a shared CPU, or
with emulated bfloat16. Therefore the process of each run measures them, with its own threads and flags, right after
training; utilisation and floor are computed from them. Each measurement is a series of short tries of which the
fastest counts, because other processes can only make a try slower. Measuring does not change torch's global random
generators and keeps no memory.
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
"""Sizes of the square matrices: from fitting into a cache to occupying all units of the device."""
GEMM_SECONDS = 0.25
"""Seconds of measuring matrix products in one precision. All measurements together take about a second."""
ATTENTION_SECONDS = 0.1
MEMORY_SECONDS = 0.15
"""Seconds of measuring each of the two kinds of memory access."""
MIN_TRIES = 3
MIN_TRY_SECONDS = 2e-3
"""Shortest try. A shorter call is repeated, so that the time to start it does not matter."""
STATE_BYTES = (2**16, 2**28)
"""The smallest and largest state with which the rate of memory is measured. Larger states are not faster."""


def measure_rates(device: str, *, precision: str, state_bytes: int) -> Rates:
    """Measure the rates of a device in a precision.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        precision: `fp32`, `bf16` or `fp16`. In half precision, float32 products are measured as well, because a run may
            use them if the device is faster at them.
        state_bytes: the bytes that the optimizer passes over in one step. The rate of memory is measured with this
            size, because the state of a small model stays in a cache.

    Returns:
        The rates; a device or precision without them has a `reason` instead.
    """
    where = torch.device(device)
    if where.type not in SIZES:
        return Rates(reason=f"rates cannot be measured on device {device}")
    if where.type == "cpu" and precision == "fp16":
        return Rates(reason="fp16 is not trained on cpu")
    dtypes = [DTYPES[name] for name in dict.fromkeys((precision, "fp32"))]
    try:
        with _on_device(where), torch.no_grad():
            return Rates(
                gemm=max((_gemm(where, dtype) for dtype in dtypes), key=lambda rate: rate.per_second),
                attention=_attention(where, dtypes[0]),
                memory=_memory(where, min(max(state_bytes, STATE_BYTES[0]), STATE_BYTES[1])),
            )
    except (RuntimeError, MemoryError) as error:  # too little memory, a missing kernel
        return Rates(reason=printable(f"measuring the rates failed: {type(error).__name__}: {error}"))


def sum_over_ranks(rates: Rates, *, ranks: Ranks) -> Rates:
    """Return the sums of what all ranks measured at the same time. Every rank must call this function."""
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
    missing = None if min(known) == ranks.world else rates.reason or "another rank has no rates"
    return Rates(gemm=gemm, attention=attention, memory=memory, reason=missing)


def _gemm(device: torch.device, dtype: torch.dtype) -> Rate:
    """Measure the FLOP/s of x W^T, the product of a linear layer: the best of `SIZES`."""
    best, size = 0.0, 0
    started = time.perf_counter()
    for n in SIZES[device.type]:
        left = GEMM_SECONDS - (time.perf_counter() - started)
        if best and MIN_TRIES * 2 * n**3 / best > left:  # the device is slow: a larger product would take too long
            break
        x, w = _random(device, dtype, n, n), _random(device, dtype, n, n)
        rate = 2 * n**3 / _fastest(partial(linear, x, w), device, seconds=left / 2)
        best, size = max((best, size), (rate, n))
    return Rate(per_second=best, source=f"measured: {size} x {size} products in {_name(dtype)}{_threads(device)}")


def _attention(device: torch.device, dtype: torch.dtype) -> Rate:
    """Measure the FLOP/s of attention, forward and backward, which are six matrix products."""
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
    """Measure the bytes/s read and written: the better of a copy and of a fused AdamW, both over `state_bytes`."""
    # Four streams at addresses that differ by a power of two would evict each other from the caches.
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
    """Return the seconds of a call in its fastest try, of at least `MIN_TRIES` and as many as fit into `seconds`."""
    call()  # the first call may include setup
    once = _timed(call, device, calls=1)
    calls = min(max(math.ceil(MIN_TRY_SECONDS / max(once, 1e-9)), 1), 1000)
    best, tries, end = math.inf, 0, time.perf_counter() + seconds
    while tries < MIN_TRIES or time.perf_counter() < end:
        best = min(best, _timed(call, device, calls=calls))
        tries += 1
    return best


def _timed(call: Callable[[], Any], device: torch.device, *, calls: int) -> float:
    """Return the mean seconds of a call, over `calls` consecutive ones."""
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
def _on_device(device: torch.device) -> Iterator[None]:
    """Run the block on the device, and free the memory it used."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        try:
            yield
        finally:
            torch.cuda.empty_cache()


def _random(device: torch.device, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Return random numbers. A GPU multiplies zeros faster, because they draw less power."""
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(shape, device=device, generator=generator).to(dtype)


def _name(dtype: torch.dtype) -> str:
    return next(name for name, other in DTYPES.items() if other is dtype)


def _threads(device: torch.device) -> str:
    if device.type != "cpu":
        return ""
    count = torch.get_num_threads()
    return f", {count} thread" + ("s" if count > 1 else "")
