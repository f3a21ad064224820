"""Devices: find one, make its results reproducible, and measure and tune its memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from touchstone.engines.training import EngineError, Execution, Precision

HUGE_PAGE_BYTES = 2**30
"""Bytes of the heap to put on huge pages."""


def resolve_device(name: str, *, precision: Precision) -> torch.device:
    """Return the device for `cpu`, `cuda` (the first one) or `cuda:N`.

    Raises:
        EngineError: the name is invalid, the device does not exist, or it does not support the precision.
    """
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not (kind == "cuda" and index.isdecimal())):
        raise EngineError(f"device {name!r} is not one of cpu, cuda, cuda:N")
    if kind == "cpu":
        if precision == "fp16":
            raise EngineError("precision fp16 needs a CUDA device for its loss scaling: use fp32 or bf16 on cpu")
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EngineError(f"device {name!r}: this torch ({torch.__version__}) finds no CUDA device; use cpu")
    count, number = torch.cuda.device_count(), int(index or 0)
    if number >= count:
        raise EngineError(f"device {name!r}: there are {count} CUDA devices, the last is cuda:{count - 1}")
    device = torch.device("cuda", number)
    if precision == "bf16" and torch.cuda.get_device_capability(device) < (8, 0):
        raise EngineError(
            f"precision bf16: {torch.cuda.get_device_name(device)} does not support bfloat16; use fp16 or fp32"
        )
    return device


@contextmanager
def reproducible(execution: Execution, device: torch.device) -> Iterator[None]:
    """Use deterministic kernels, unless the execution turns them off, and make `device` the current CUDA device."""
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    chosen = os.environ.get("ACCELERATE_TORCH_DEVICE")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.reset_peak_memory_stats(device)
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
        # cuBLAS reads it when it starts: https://docs.nvidia.com/cuda/cublas/#results-reproducibility
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(execution.deterministic)
    # Filling new tensors with NaN would cost time in every step; no code here reads uninitialized memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        if device.type == "cuda":
            if chosen is None:
                del os.environ["ACCELERATE_TORCH_DEVICE"]
            else:
                os.environ["ACCELERATE_TORCH_DEVICE"] = chosen


def peak_host_bytes() -> int:
    """Return the peak resident memory of this process since its start, whatever it has run."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def peak_device_bytes(device: torch.device) -> int | None:
    """Return the peak memory of tensors on the device since the run began; None on the host."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks, and put the heap on pages of 2 MiB. Other C libraries are left alone.

    By default glibc maps each block beyond 32 MiB from the system and unmaps it when it is freed. The system fills
    every new page with zeros, so allocating an activation of 250 MB takes longer than computing it. Besides, a
    processor caches the addresses of only some thousand pages, which are 4 KiB by default. The settings hold until the
    process ends.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # not glibc
        return
    libc.mallopt(-4, 0)  # M_MMAP_MAX: do not map single blocks
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: do not shrink the heap
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if (block := libc.malloc(HUGE_PAGE_BYTES)) is not None:  # reserves addresses; memory is assigned on first access
        start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
        libc.madvise(start, HUGE_PAGE_BYTES - mmap.PAGESIZE, mmap.MADV_HUGEPAGE)  # a refusal does no harm
        libc.free(block)
