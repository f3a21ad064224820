"""How much arithmetic a run did, and what share of the device's peak that is. On an unknown device there is no
share.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from suite.numbers import Amount
from suite.records.hardware import Hardware, Software
from suite.text import Line

FORMULA = (
    "6 N T: N all parameters, T tokens gone through, padding among them "
    "(after Kaplan et al. 2020, 2.1, who leave embeddings out of N)"
)
TERA = 1e12
_HOPPER_SXM = (67.0, 494.5, 989.5)
_AMPERE = (19.5, 156.0, 312.0)
PEAKS = {
    "NVIDIA H200": _HOPPER_SXM,
    "NVIDIA H100 80GB HBM3": _HOPPER_SXM,
    "NVIDIA H100 PCIe": (51.0, 378.0, 756.5),
    "NVIDIA A100-SXM4-40GB": _AMPERE,
    "NVIDIA A100-SXM4-80GB": _AMPERE,
    "NVIDIA A100-PCIE-40GB": _AMPERE,
    "NVIDIA A100 80GB PCIe": _AMPERE,
    "NVIDIA L40S": (91.6, 183.0, 362.0),
    "NVIDIA L4": (30.3, 60.0, 121.0),
    "NVIDIA A10": (31.2, 62.5, 125.0),
}
"""Model name to dense peaks in TFLOP/s: fp32, TF32, bf16 and fp16. Whole names: a slice of a GPU (MIG) and a variant
(NVL) have other peaks. NVIDIA's data sheets; figures that they print with sparsity are halved here."""


class Efficiency(BaseModel):
    """Attributes:
    flops: floating-point operations of training, by `formula`.
    peak_flops_per_second: of one device in the precision used; None where it is not known for certain.
    utilisation: `flops / train seconds / peak`; None without a peak.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    formula: Line
    flops: Amount
    peak_flops_per_second: Amount | None
    peak_source: Line | None
    utilisation: Amount | None

    @model_validator(mode="after")
    def _no_share_of_an_unknown_peak(self) -> Self:
        if (self.peak_flops_per_second is None) != (self.peak_source is None):
            raise ValueError("a peak and its source go together")
        if self.peak_flops_per_second is None and self.utilisation is not None:
            raise ValueError(f"utilisation {self.utilisation} without a peak: it must be null on an unknown device")
        return self


def efficiency_of(
    *, parameters: int, tokens: int, train_seconds: float, hardware: Hardware, software: Software, precision: str
) -> Efficiency:
    """Arithmetic of training, and its share of the peak.

    Args:
        parameters: of the model, all of them.
        tokens: that went through training, padding among them: the device computes that, too.
        train_seconds: of training alone.
    """
    flops = 6.0 * parameters * tokens
    peak, source = peak_of(hardware, software=software, precision=precision)
    known = peak is not None and train_seconds > 0
    return Efficiency(
        formula=FORMULA,
        flops=flops,
        peak_flops_per_second=peak,
        peak_source=source,
        utilisation=flops / train_seconds / peak if known and peak else None,
    )


def peak_of(hardware: Hardware, *, software: Software, precision: str) -> tuple[float, str] | tuple[None, None]:
    """Peak FLOP/s of the run's device with its source; of a device that is not in `PEAKS`, CPUs among them, nothing."""
    if not hardware.device.startswith("cuda") or hardware.gpu_model is None:
        return None, None
    if hardware.gpu_model not in PEAKS:
        return None, None
    fp32, tf32, half = PEAKS[hardware.gpu_model]
    if precision in ("bf16", "fp16"):
        return half * TERA, f"NVIDIA data sheet, {precision} tensor cores, dense"
    if software.flags.get("float32_matmul_precision", "highest") != "highest":
        return tf32 * TERA, "NVIDIA data sheet, TF32 tensor cores, dense"
    return fp32 * TERA, "NVIDIA data sheet, fp32 without tensor cores"
