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
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, Field

from touchstone.fields import Line, printable
from touchstone.records.energy import Energy, EnergyMeter
from touchstone.records.gpu import find_gpu

# Which version of the suite this is.


class SuiteVersion(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Line
    commit: Line | None
    dirty: bool | None
    """Whether the working tree had changes that no commit has; None where there is no repository."""


def suite_version(root: Path | None = None) -> SuiteVersion:
    """The version of the suite, and the commit of its own repository where it runs from one."""
    root = Path(__file__).parents[2] if root is None else root
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    # Records themselves are written while a suite runs; they are results, not the code that made them.
    status = _git(root, "status", "--porcelain", "--", ":!results") if commit else None
    try:
        number = version("touchstone")
    except PackageNotFoundError:
        number = "not installed"
    return SuiteVersion(version=number, commit=commit, dirty=None if status is None else bool(status))


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


# What is installed and set, as far as it changes numbers or speed.


PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "accelerate",
    "evaluate",
    "seqeval",
    "safetensors",
    "numpy",
    "pyarrow",
    "triton",
    "flash-attn",
)
WORKERS = "PYTEST_XDIST_WORKER_COUNT"
"""Set where one session makes several runs at a time (`pytest suite/ -n N`)."""
VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "MKL_NUM_THREADS",
    "MKL_CBWR",
    "KMP_AFFINITY",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_TF32_OVERRIDE",
    "NCCL_ALGO",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCHDYNAMO_DISABLE",
    "TOKENIZERS_PARALLELISM",
    "PYTHONHASHSEED",
    WORKERS,
)
"""Environment variables that are noted where they are set. A list, and not a pattern: no token may slip into a
record.
"""


class Software(BaseModel):
    """Versions, flags and environment of a run.

    Attributes:
        packages: installed ones among `PACKAGES`.
        flags: torch's settings that change numerics or speed, as text.
        environment: the set ones among `VARIABLES`.
        attention: the attention implementation of the model, where one was given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: Line
    platform: Line
    packages: dict[str, Line]
    flags: dict[str, Line]
    environment: dict[str, Line]
    attention: Line | None


def runs_alone(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this run has the machine for itself, as far as the session that started it knows."""
    return environment.get(WORKERS, "1") == "1"


def describe_software(model: Any = None, *, environment: Mapping[str, str] = os.environ) -> Software:
    """The software of this process, as it is set now.

    Args:
        model: a transformers model, whose attention implementation is noted.
    """
    return Software(
        python=platform.python_version(),
        platform=printable(f"{platform.system()} {platform.release()} {platform.machine()}"),
        packages={name: found for name in PACKAGES if (found := _version(name))},
        flags=_flags(),
        environment={name: printable(environment[name]) for name in VARIABLES if name in environment},
        attention=getattr(getattr(model, "config", None), "_attn_implementation", None),
    )


def _version(package: str) -> str | None:
    try:
        return printable(version(package))
    except PackageNotFoundError:
        return None


def _flags() -> dict[str, str]:
    import torch

    flags = {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "mkldnn": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,  # type: ignore[no-untyped-call]
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cuda_runtime": torch.version.cuda,
    }
    if torch.cuda.is_available():
        flags |= {
            "matmul_fp32_precision": torch.backends.cuda.matmul.fp32_precision,
            "cudnn_fp32_precision": torch.backends.cudnn.fp32_precision,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "bf16_reduced_precision_reduction": torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
            "flash_sdp": torch.backends.cuda.flash_sdp_enabled(),  # type: ignore[no-untyped-call]
            "memory_efficient_sdp": torch.backends.cuda.mem_efficient_sdp_enabled(),  # type: ignore[no-untyped-call]
            "cudnn_sdp": torch.backends.cuda.cudnn_sdp_enabled(),  # type: ignore[no-untyped-call]
            "math_sdp": torch.backends.cuda.math_sdp_enabled(),  # type: ignore[no-untyped-call]
        }
    return {name: str(value) for name, value in flags.items()}


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
