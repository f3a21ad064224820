"""The machine, as far as it changes a figure: described so that the same machine is the same tomorrow.

Only what stays is looked at: no host name, no address, no clock, no free memory (a hash with a boot-time value in it
splits one machine into many, and comparisons then find regressions between it and itself: folo-rs/folo#429).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field

from suite.records.energy import Energy, EnergyMeter
from suite.records.gpu import find_gpu
from suite.records.software import Software, describe_software
from suite.text import Line, printable

__all__ = ["Energy", "EnergyMeter", "Hardware", "Software", "describe_hardware", "describe_software"]

GIB = 2**30
VAGUE_CPU = re.compile(
    r"|-|unknown|.*(virtual|kvm|qemu|common).*"
    r"|intel(\(r\))? xeon(\(r\))? (processor|cpu)( \(.*\)| @.*)?"
    r"|(amd )?epyc(-\w+)? processor",
    re.IGNORECASE,
)
"""Model names that hypervisors make up, and that say next to nothing of the CPU beneath."""
TELLING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx_vnni", "amx_bf16", "asimd", "sve", "bf16")
"""Instruction sets that change how fast torch is."""
NOISE_WORDS = re.compile(
    r"\((r|tm|c)\)|@.*|\b(intel|amd|apple|nvidia|genuineintel|authenticamd|tesla|geforce|quadro|processor|cpu|graphics|core|gen|\d+-core|\d+th|hbm\w*)\b",
    re.I,
)


class Hardware(BaseModel):
    """What is fixed while a machine stays the same machine.

    Attributes:
        id: 16 hex digits of the CPU's and GPU's model, their counts and nominal memory.
        name: for people, such as `xeon-2c-24g` or `h100-80gb-xeon-platinum-8480-16c-128g`.
        device: what the run used, such as `cpu` or `cuda:0`. Not in the id: a machine has one id.
        cpu_cores, cpu_threads, memory_bytes: what this process may use (affinity and control group counted).
        gpu_count: GPUs that this process sees; the other entries are those of the device, or of the first GPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern="^[0-9a-f]{16}$")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=120)
    device: Line
    cpu_model: Line
    cpu_cores: int = Field(ge=1)
    cpu_threads: int = Field(ge=1)
    memory_bytes: int = Field(ge=1, lt=2**63)
    gpu_model: Line | None
    gpu_count: int = Field(ge=0)
    gpu_memory_bytes: int | None = Field(ge=1, lt=2**63)
    gpu_compute_capability: Line | None
    gpu_driver: Line | None

    @property
    def folder(self) -> str:
        """Where its records lie: the name, and enough of the id that two machines of one name do not mix."""
        return f"{self.name}-{self.id[:6]}"


def describe_hardware(device: str) -> Hardware:
    """The machine that this process runs on.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        ValueError: there is no such device.
    """
    cpu_model = read_cpu_model()
    threads = usable_threads()
    # Cores of a machine that this process has only a part of cannot be more than the threads it has.
    cores = min(psutil.cpu_count(logical=False) or threads, threads)
    memory = usable_memory()
    gpu_count, gpu = find_gpu(device)
    nominal = nominal_gib(memory)
    identity = {
        "cpu": cpu_model,
        "cores": cores,
        "threads": threads,
        "memory": nominal,
        "gpu": gpu.model if gpu else None,
        "gpus": gpu_count,
        "gpu_memory": nominal_gib(gpu.memory_bytes) if gpu else None,
    }
    parts = [short_name(cpu_model), f"{cores}c", f"{nominal}g"]
    if gpu:
        parts.insert(0, (f"{gpu_count}x" if gpu_count > 1 else "") + short_name(gpu.model))
    return Hardware(
        id=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16],
        name="-".join(parts),
        device=device,
        cpu_model=cpu_model,
        cpu_cores=cores,
        cpu_threads=threads,
        memory_bytes=memory,
        gpu_model=gpu.model if gpu else None,
        gpu_count=gpu_count,
        gpu_memory_bytes=gpu.memory_bytes if gpu else None,
        gpu_compute_capability=gpu.compute_capability if gpu else None,
        gpu_driver=gpu.driver if gpu else None,
    )


def read_cpu_model(root: Path = Path("/")) -> str:
    """The CPU's model name; where that is vague or missing, with family, model and telling instruction sets added.

    Args:
        root: of the file system that `/proc` is read from.
    """
    try:
        text = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return printable(_macos_cpu() or platform.processor() or platform.machine() or "unknown CPU")
    first = text.strip().split("\n\n")[0]
    facts = {
        key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())
    }
    name = facts.get("model name", "")
    if not VAGUE_CPU.fullmatch(name):
        return printable(name)
    if "cpu part" in facts:  # ARM's kernels give numbers instead of a name
        details = [f"implementer {facts.get('cpu implementer', '?')}", f"part {facts['cpu part']}"]
    else:
        details = [
            f"{label} {facts[key]}" for label, key in (("family", "cpu family"), ("model", "model")) if key in facts
        ]
    flags = set(facts.get("flags", facts.get("features", "")).split())
    details += [flag for flag in TELLING_FLAGS if flag in flags]
    base = name if name.strip("-") and name.lower() != "unknown" else f"{platform.machine()} CPU"
    return printable(f"{base} ({', '.join(details)})" if details else base)


def usable_threads(root: Path = Path("/")) -> int:
    """Hardware threads that this process may use: its affinity, and no more than its control group's quota."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota, period = _cgroup(root, "cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
    if quota and period:
        threads = min(threads, max(1, -(-quota // period)))
    return threads


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: the machine's, and no more than its control group's limit."""
    total = psutil.virtual_memory().total
    limit, _ = _cgroup(root, "memory.max", "memory/memory.limit_in_bytes", None)
    return min(total, limit) if limit else total


def nominal_gib(size: int) -> int:
    """The size on the box: what a system reports is less than it, by an amount that changes with kernel, driver and
    firmware.

    Rounds up to 2^k, 1.25 * 2^k, 1.5 * 2^k or 1.75 * 2^k GiB, so that no usual size lies where it could fall either
    way.
    """
    gib = size / GIB
    step = 1.0
    while 2 * step < gib:
        step *= 2
    return int(next(step * f for f in (1, 1.25, 1.5, 1.75, 2) if step * f >= gib and (step * f).is_integer()))


def short_name(model: str) -> str:
    """`Intel(R) Xeon(R) Platinum 8480+` is `xeon-platinum-8480`; `NVIDIA H100 80GB HBM3` is `h100-80gb`."""
    words = NOISE_WORDS.sub(" ", model.partition(" (")[0] or model)
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:40].strip("-") or "unknown"


def _cgroup(root: Path, v2: str, v1: str, v1_second: str | None) -> tuple[int | None, int | None]:
    """The numbers of a control group's file, version 2 or 1; None for `max`, a negative number, or no such file."""
    base = root / "sys/fs/cgroup"

    def numbers(path: Path) -> list[int | None]:
        try:
            return [int(word) if word.isdigit() else None for word in path.read_text().split()]
        except OSError:
            return []

    found = numbers(base / v2) or numbers(base / v1) + (numbers(base / v1_second) if v1_second else [])
    return (*found, None, None)[0], (*found, None, None)[1]


def _macos_cpu() -> str:
    if platform.system() != "Darwin":
        return ""
    command = ["sysctl", "-n", "machdep.cpu.brand_string"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout.strip()
