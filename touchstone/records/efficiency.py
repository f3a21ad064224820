"""How much of what the machine can do a run made use of: utilisation, and the floor that its time stands on.

The floor is the time that a run's necessary work takes at the rates measured on the machine itself: its arithmetic at
the rate of matrix products, then, step by step, a pass of a dense AdamW over the whole state at the rate of memory. It
leaves out all that might be hidden or avoided, so a run of the closed division takes longer; docs/speed.md says what a
run that does not would have done otherwise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, model_validator

from touchstone.fields import Amount, Count, Line, printable

if TYPE_CHECKING:  # reading a record needs no torch
    from touchstone.engines.work import Work


NOT_COUNTED = "not counted"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rate(_Model):
    """A rate that was measured: FLOP/s or bytes/s, and how."""

    per_second: Amount
    source: Line


class Rates(_Model):
    """What a probe found; `reason` says why it found nothing."""

    gemm: Rate | None = None
    attention: Rate | None = None
    memory: Rate | None = None
    reason: Line | None = None


class Floor(_Model):
    """Seconds that the necessary work takes at the rates measured.

    Attributes:
        arithmetic_seconds: `flops` at the rate of matrix products.
        optimizer_bytes: 28 for every trainable parameter and step.
        optimizer_seconds: these at the rate of memory.
        seconds: both, one after the other.
        fraction: of the training's seconds; 1 would be a run that does nothing else, as fast as can be.
    """

    arithmetic_seconds: Amount
    optimizer_bytes: Count
    optimizer_seconds: Amount
    seconds: Amount
    fraction: Amount

    @model_validator(mode="after")
    def _is_the_sum_of_its_parts(self) -> Self:
        if not math.isclose(self.seconds, parts := self.arithmetic_seconds + self.optimizer_seconds, rel_tol=1e-6):
            raise ValueError(f"the floor has {self.seconds} seconds, and its parts {parts}")
        return self


class Efficiency(_Model):
    """Attributes:
    formula: what `flops` counts.
    flops: floating-point operations of training, by `formula`; None where they could not be counted.
    peak_flops_per_second: of the device in the precision used; None where it is not known for certain.
    utilisation: `flops / train seconds / peak`; None where one of them is missing.
    attention, memory: rates measured beside the peak. None in records from before they were.
    floor: None where flops, peak or the memory's rate is not known, and in records from before it was made.
    reason: why something is None, where there is one.
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
    def _nothing_is_made_of_what_is_not_known(self) -> Self:
        if (self.peak_flops_per_second is None) != (self.peak_source is None):
            raise ValueError("a peak and its source go together")
        known = self.peak_flops_per_second is not None and self.flops is not None
        if self.utilisation is not None and not known:
            raise ValueError(f"utilisation {self.utilisation} without flops or a peak: it must be null")
        if self.floor is not None and not (known and self.memory is not None):
            raise ValueError("a floor without flops, a peak or the memory's rate: it must be null")
        return self


def efficiency_of(work: Work | None, *, rates: Rates, train_seconds: float, reason: str | None = None) -> Efficiency:
    """Utilisation and floor of a run.

    Args:
        work: that the run had to do; None where it could not be counted.
        rates: of the run's device in its precision.
        train_seconds: of training alone.
        reason: why there is no work.
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
