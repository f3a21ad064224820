"""The device that a run asks for, whether it can do what is asked, and how to make it do the same twice."""

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

HUGE = 2**30
"""Bytes of the heap that are asked to be on huge pages: more would be given back as soon as they are free."""


def resolve_device(name: str, *, precision: Precision) -> torch.device:
    """`cpu`, `cuda` (the first one) or `cuda:N`.

    Raises:
        EngineError: another name, a device that is not there, a precision that it cannot do.
    """
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not (kind == "cuda" and index.isdecimal())):
        raise EngineError(f"device {name!r} is none of cpu, cuda, cuda:N")
    if kind == "cpu":
        if precision == "fp16":
            raise EngineError(
                "precision fp16 needs a CUDA device (its gradients are scaled there): take fp32 or bf16 on cpu"
            )
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EngineError(f"device {name!r}: this torch ({torch.__version__}) sees no CUDA device; take cpu")
    count, number = torch.cuda.device_count(), int(index or 0)
    if number >= count:
        raise EngineError(f"device {name!r}: there are {count} CUDA devices, the last is cuda:{count - 1}")
    device = torch.device("cuda", number)
    if precision == "bf16" and torch.cuda.get_device_capability(device) < (8, 0):
        raise EngineError(
            f"precision bf16: {torch.cuda.get_device_name(device)} has no bfloat16 units; take fp16 or fp32"
        )
    return device


@contextmanager
def reproducible(execution: Execution, device: torch.device) -> Iterator[None]:
    """Deterministic kernels unless the execution says otherwise; the device is the one that torch's callers find."""
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
    # Nothing here reads memory that it has not written; filling it first would cost time in every step.
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
    """The most resident memory this process has ever had: one run a process, or the number is of all its runs."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def peak_device_bytes(device: torch.device) -> int | None:
    """The most memory that tensors have held on the device since the run began; None on the host."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def keep_freed_memory() -> None:
    """Let the C library keep large blocks that were freed, on pages of 2 MiB, where it can be told so (glibc).

    It takes blocks beyond 32 MiB from the system and gives them back each time, and the system fills each page with
    zeros when it is touched: an activation of 250 MB costs more to get than to compute. And of pages of 4 KiB a
    processor knows the addresses of some thousand alone. For a process that trains and ends.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # another C library has none
        return
    libc.mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped by itself
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: freed blocks at the heap's end stay
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if (block := libc.malloc(HUGE)) is not None:  # addresses; memory comes with the first touch
        start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
        libc.madvise(start, HUGE - mmap.PAGESIZE, mmap.MADV_HUGEPAGE)  # where it is refused, all goes on as before
        libc.free(block)
