"""The GPUs, as torch and NVML know them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pynvml

from touchstone.fields import printable


@dataclass(frozen=True)
class Gpu:
    model: str
    memory_bytes: int
    compute_capability: str
    driver: str | None


def device_index(device: str) -> int | None:
    """The number of a CUDA device; None of any other. Raises ValueError for what is no device."""
    kind, _, number = device.partition(":")
    if kind == "cuda" and (not number or number.isdecimal()):
        return int(number or 0)
    if device == "cpu":
        return None
    raise ValueError(f"device {device!r}: use cpu, cuda or cuda:N")


def find_gpu(device: str) -> tuple[int, Gpu | None]:
    """How many GPUs torch sees, and the one that `device` names (the first, where it names none).

    Raises:
        ValueError: there is no such device.
    """
    import torch

    count = torch.cuda.device_count()
    index = device_index(device)
    if index is not None and index >= count:
        raise ValueError(f"device {device!r}: torch sees {count} CUDA devices; use cpu or a lower number")
    if count == 0:
        return 0, None
    properties = torch.cuda.get_device_properties(index or 0)
    return count, Gpu(
        model=printable(properties.name),
        memory_bytes=properties.total_memory,
        compute_capability=f"{properties.major}.{properties.minor}",
        driver=driver_version(),
    )


@contextmanager
def nvml() -> Iterator[None]:
    """NVML for the time being. Raises `pynvml.NVMLError` where there is no driver."""
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def nvml_handle(device: str) -> Any:
    """NVML's handle of the GPU that torch calls `device`.

    Found by its UUID: CUDA_VISIBLE_DEVICES renumbers torch's devices, not NVML's.
    """
    import torch

    return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device_index(device) or 0).uuid}")


def driver_version() -> str | None:
    try:
        with nvml():
            return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None
