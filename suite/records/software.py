"""What is installed and set, as far as it changes numbers or speed."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel, ConfigDict

from suite.text import Line, printable

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
