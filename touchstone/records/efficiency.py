"""Efficiency: how much of the machine's speed a run used (utilisation), and the floor below its training time.

The floor is the time that the minimum work of a run takes at rates measured on the same machine: its arithmetic at
the rate of matrix products, and one pass of a dense AdamW over the whole state for each step at the rate of memory.
Everything that could be hidden or avoided is left out, so a run of the closed division takes longer. docs/speed.md
explains what it means if a run is faster than its floor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import model_validator
from typing_extensions import Self

from touchstone.fields import Amount, Count, FrozenModel, Line, printable

if TYPE_CHECKING:  # reading a record needs no torch
    from touchstone.engines.work import Work


NOT_COUNTED = "not counted"
"""The `formula` of an efficiency without flops."""


class Rate(FrozenModel):
    """A measured rate in FLOP/s or bytes/s, and how it was measured."""

    per_second: Amount
    source: Line


class Rates(FrozenModel):
    """The measured rates of a machine; `reason` says why some are missing."""

    gemm: Rate | None = None
    attention: Rate | None = None
    memory: Rate | None = None
    reason: Line | None = None


class Floor(FrozenModel):
    """The seconds that the minimum work of a run takes at the measured rates.

    Attributes:
        arithmetic_seconds: the time of `flops` at the rate of matrix products.
        optimizer_bytes: 28 bytes for each trainable parameter and step.
        optimizer_seconds: the time of these bytes at the rate of memory.
        seconds: the sum of both times.
        fraction: `seconds` as a fraction of the training time.
    """

    arithmetic_seconds: Amount
    optimizer_bytes: Count
    optimizer_seconds: Amount
    seconds: Amount
    fraction: Amount

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        if not math.isclose(self.seconds, parts := self.arithmetic_seconds + self.optimizer_seconds, rel_tol=1e-6):
            raise ValueError(f"seconds is {self.seconds}, but the parts of the floor add up to {parts}")
        return self


class Efficiency(FrozenModel):
    """The utilisation and the floor of a run, with what they were computed from.

    Attributes:
        formula: what `flops` counts.
        flops: floating-point operations of training; None if they could not be counted.
        peak_flops_per_second: the device's peak in the run's precision; None if it was not measured.
        utilisation: `flops / training seconds / peak`; None if one of them is not known.
        attention, memory: the other measured rates; None in records from before they were measured.
        floor: None if flops, peak or the rate of memory is not known, and in records from before floors existed.
        reason: why something is None.
    """

    formula: Line
    flops: Amount | None
    peak_flops_per_second: Amount | None
    peak_source: Line | None
    utilisation: Amount | None
    attention: Rate | None = None
    memory: Rate | None = None
    floor: Floor | None = None
    reason: Line | None = None

    @model_validator(mode="after")
    def _check_inputs_are_known(self) -> Self:
        if (self.peak_flops_per_second is None) != (self.peak_source is None):
            raise ValueError("peak_flops_per_second and peak_source must both be given or both be null")
        known = self.peak_flops_per_second is not None and self.flops is not None
        if self.utilisation is not None and not known:
            raise ValueError(f"utilisation is {self.utilisation} without flops or a peak: it must be null")
        if self.floor is not None and not (known and self.memory is not None):
            raise ValueError("floor is given without flops, a peak or the rate of memory: it must be null")
        return self


def efficiency_of(work: Work | None, *, rates: Rates, train_seconds: float, reason: str | None = None) -> Efficiency:
    """Compute utilisation and floor of a run.

    Args:
        work: the minimum work of the run; None if it could not be counted.
        rates: the measured rates of the run's device in its precision.
        train_seconds: the time of training alone.
        reason: why `work` is None.
    """
    gemm, memory = rates.gemm, rates.memory
    floor = utilisation = None
    if work is not None and gemm is not None and train_seconds > 0:
        utilisation = work.flops / train_seconds / gemm.per_second
        if memory is not None:
            arithmetic, optimizer = work.flops / gemm.per_second, work.optimizer_bytes / memory.per_second
            floor = Floor(
                arithmetic_seconds=arithmetic,
                optimizer_bytes=work.optimizer_bytes,
                optimizer_seconds=optimizer,
                seconds=arithmetic + optimizer,
                fraction=(arithmetic + optimizer) / train_seconds,
            )
    reasons = [f"no flops: {reason}" if reason else "", f"no rates: {rates.reason}" if rates.reason else ""]
    return Efficiency(
        formula=NOT_COUNTED if work is None else work.formula,
        flops=None if work is None else work.flops,
        peak_flops_per_second=None if gemm is None else gemm.per_second,
        peak_source=None if gemm is None else gemm.source,
        utilisation=utilisation,
        attention=rates.attention,
        memory=memory,
        floor=floor,
        reason=printable("; ".join(filter(None, reasons))) or None,
    )
