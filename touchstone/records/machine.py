"""The machine, the installed software and the suite's version, as a record keeps them.

The machine's id must be the same tomorrow, so it covers only what stays: no host name, no address, no clock, no free
memory. (A hash with a boot-time value in it splits one machine into many, and comparisons then find regressions between
the machine and itself: folo-rs/folo#429.)
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import Field

from touchstone.fields import FrozenModel, Line, optional_import, printable


class SuiteVersion(FrozenModel):
    """The version of the suite.

    Attributes:
        commit: the commit of the suite's own repository; None if it does not run from one.
        dirty: True if the working tree had uncommitted changes; None if there is no repository.
    """

    version: Line
    commit: Line | None
    dirty: bool | None


def suite_version(root: Path | None = None) -> SuiteVersion:
    """Return the version of the suite, with the commit if it runs from its own repository."""
    root = Path(__file__).parents[2] if root is None else root
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    # The suite writes records while it runs. They are results, not code.
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
"""The variable that is set if one session makes several runs at a time (`pytest suite/ -n N`)."""
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
"""Environment variables that a record keeps. This is a list of names and not a pattern, so that no access token can get
into a record."""


class Software(FrozenModel):
    """Versions, flags and environment of a run.

    Attributes:
        packages: the versions of the installed packages in `PACKAGES`.
        flags: torch's settings that change numerics or speed, as text.
        environment: the values of the variables in `VARIABLES` that are set.
        attention: the attention implementation of the model, if there is a model.
    """

    python: Line
    platform: Line
    packages: dict[str, Line]
    flags: dict[str, Line]
    environment: dict[str, Line]
    attention: Line | None


def runs_alone(environment: Mapping[str, str] = os.environ) -> bool:
    """Return False if other runs of the same session share the machine with this run."""
    return environment.get(WORKERS, "1") == "1"


def describe_software(model: Any = None, *, environment: Mapping[str, str] = os.environ) -> Software:
    """Return the software of this process with its current settings.

    Args:
        model: a transformers model; its attention implementation is kept.
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


GIB = 2**30
VAGUE_CPU = re.compile(
    r"|-|unknown|.*(virtual|kvm|qemu|common).*"
    r"|intel(\(r\))? xeon(\(r\))? (processor|cpu)( \(.*\)| @.*)?"
    r"|(amd )?epyc(-\w+)? processor",
    re.IGNORECASE,
)
"""Model names that hypervisors invent, which do not identify the CPU."""
TELLING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx_vnni", "amx_bf16", "asimd", "sve", "bf16")
"""Instruction sets that torch uses, and that therefore change its speed."""
NOISE_WORDS = re.compile(
    r"\((r|tm|c)\)|@.*|\b(intel|amd|apple|nvidia|genuineintel|authenticamd|tesla|geforce|quadro|processor|cpu|graphics|core|gen|\d+-core|\d+th|hbm\w*)\b",
    re.I,
)


class Hardware(FrozenModel):
    """The hardware of one machine.

    Attributes:
        id: 16 hex digits of a hash over the models of CPU and GPU, their counts and their nominal memory.
        name: a readable name, such as `xeon-2c-24g` or `h100-80gb-xeon-platinum-8480-16c-128g`.
        device: the device of the run, such as `cpu` or `cuda:0`. It is not part of the id.
        cpu_cores, cpu_threads, memory_bytes: what this process may use, within its affinity and control group.
        gpu_count: the number of GPUs that this process sees. The other `gpu_` entries describe the device, or the first
            GPU if the device is the CPU.
    """

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
        """The folder of its records: the name and the start of the id, which separates machines of the same name."""
        return f"{self.name}-{self.id[:6]}"


def describe_hardware(device: str) -> Hardware:
    """Return the hardware that this process runs on.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        ValueError: there is no such device.
    """
    cpu_model = read_cpu_model()
    threads = usable_threads()
    # This process may be limited to fewer threads than the machine has cores.
    cores = min(optional_import("psutil").cpu_count(logical=False) or threads, threads)
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


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch and NVML describe it."""

    model: str
    memory_bytes: int
    compute_capability: str
    driver: str | None


def find_gpu(device: str) -> tuple[int, Gpu | None]:
    """Return the number of GPUs that torch sees, and the GPU that `device` names (the first if it names none).

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


def device_index(device: str) -> int | None:
    """Return the number of a CUDA device, or None for the CPU.

    Raises:
        ValueError: the name is neither `cpu`, `cuda` nor `cuda:N`.
    """
    kind, _, number = device.partition(":")
    if kind == "cuda" and (not number or number.isdecimal()):
        return int(number or 0)
    if device == "cpu":
        return None
    raise ValueError(f"device {device!r}: use cpu, cuda or cuda:N")


def gpu_uuid(device: str) -> str:
    """Return the UUID of a CUDA device, as NVML spells it."""
    import torch

    return f"GPU-{torch.cuda.get_device_properties(device_index(device) or 0).uuid}"


def driver_version() -> str | None:
    """Return the version of NVIDIA's driver, or None if there is no driver."""
    pynvml = optional_import("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def read_cpu_model(root: Path = Path("/")) -> str:
    """Return the CPU's model name. A vague or missing name is completed with family, model and instruction sets.

    Args:
        root: the root of the file system that contains `/proc`.
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
    if "cpu part" in facts:  # on ARM, Linux gives numbers instead of a name
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
    """Return the number of hardware threads this process may use, within its affinity and its control group's quota."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota, period = _cgroup(root, "cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")
    if quota and period:
        threads = min(threads, max(1, -(-quota // period)))
    return threads


def usable_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory this process may use: the machine's, or its control group's limit if that is less."""
    total: int = optional_import("psutil").virtual_memory().total
    limit, _ = _cgroup(root, "memory.max", "memory/memory.limit_in_bytes", None)
    return min(total, limit) if limit else total


def nominal_gib(size: int) -> int:
    """Return the nominal size of a memory, in GiB.

    A system reports a little less, by an amount that depends on kernel, driver and firmware. The size is rounded up to
    2^k, 1.25 * 2^k, 1.5 * 2^k or 1.75 * 2^k GiB: reported sizes of usual memories are not close to these steps.

    >>> nominal_gib(int(31.1 * 2**30))
    32
    """
    gib = size / GIB
    step = 1.0
    while 2 * step < gib:
        step *= 2
    return int(next(step * f for f in (1, 1.25, 1.5, 1.75, 2) if step * f >= gib and (step * f).is_integer()))


def short_name(model: str) -> str:
    """Shorten a model name so that it can be part of a folder's name.

    >>> short_name("Intel(R) Xeon(R) Platinum 8480+"), short_name("NVIDIA H100 80GB HBM3")
    ('xeon-platinum-8480', 'h100-80gb')
    """
    words = NOISE_WORDS.sub(" ", model.partition(" (")[0] or model)
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:40].strip("-") or "unknown"


def _cgroup(root: Path, v2: str, v1: str, v1_second: str | None) -> tuple[int | None, int | None]:
    """Return the numbers in a control group's file (version 2 or 1); None for `max`, a negative number or no file."""
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
