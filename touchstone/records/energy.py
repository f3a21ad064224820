"""Joules from a hardware counter, where there is one; never an estimate."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import pynvml
from pydantic import BaseModel, ConfigDict

from touchstone.fields import Amount, Line, printable
from touchstone.records.gpu import device_index, nvml_handle

POWERCAP = Path("/sys/class/powercap")
LOOK_SECONDS = 30.0
"""How often a counter that wraps is looked at. RAPL's usual range of 262 kJ lasts a package of 400 W eleven minutes."""


COUNTER_ERRORS = (OSError, ValueError, pynvml.NVMLError)
"""How a counter fails: it is missing, may not be read, or says no number."""


class Energy(BaseModel):
    """Joules with their source; or, without any, the reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    joules: Amount | None
    source: Line | None
    reason: Line | None


def total_energy(energies: Sequence[Energy]) -> Energy:
    """Of a run that several counters measured, of a part each; no sum where one of them could not."""
    if len(energies) == 1:
        return energies[0]
    if (lacking := next((energy for energy in energies if energy.joules is None), None)) is not None:
        return lacking
    joules = sum(energy.joules or 0.0 for energy in energies)
    return Energy(joules=round(joules, 3), source=f"{energies[0].source}; sum of {len(energies)}", reason=None)


def shared_counter() -> Energy:
    """Of a run beside others that the same session measures: what they used cannot be told apart."""
    return Energy(joules=None, source=None, reason="no energy: other runs of this session used the same counter")


class Counter(Protocol):
    """What an energy counter offers. `joules` counts up from an arbitrary start and may raise OSError or NVMLError."""

    source: str

    def joules(self) -> float: ...
    def close(self) -> None: ...


class EnergyMeter:
    """`with EnergyMeter("cuda:0") as meter: ...`, then `meter.energy`.

    On a GPU it is that GPU's energy (NVML's counter, Volta and newer), on the CPU that of all processor packages (Linux
    RAPL), whoever uses them: other processes are counted, the rest of the machine (memory, fans, power supply) is not.
    """

    def __init__(self, device: str, *, powercap: Path = POWERCAP, look_seconds: float = LOOK_SECONDS) -> None:
        self.energy = Energy(joules=None, source=None, reason="the measurement has not ended")
        self._device = device
        self._powercap = powercap
        self._look_seconds = look_seconds
        self._done = threading.Event()
        self._counter: Counter | None = None
        self._watch: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self._counter = open_counter(self._device, powercap=self._powercap)
            self._start = self._counter.joules()
        except COUNTER_ERRORS as error:
            if self._counter is not None:
                self._counter.close()
            self._fail(error)
            return self
        self._watch = threading.Thread(target=self._look, name="energy", daemon=True)
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watch is None or self._counter is None:
            return
        self._done.set()
        self._watch.join()
        try:
            used = self._counter.joules() - self._start
            self.energy = Energy(joules=round(used, 3), source=self._counter.source, reason=None)
        except COUNTER_ERRORS as problem:
            self._fail(problem)
        self._counter.close()

    def _look(self) -> None:
        while not self._done.wait(self._look_seconds):
            try:
                assert self._counter is not None
                self._counter.joules()
            except COUNTER_ERRORS:
                return  # the last reading meets the same error and says so

    def _fail(self, error: Exception) -> None:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self.energy = Energy(joules=None, source=None, reason=printable(f"no energy counter: {text}"))


def open_counter(device: str, *, powercap: Path = POWERCAP) -> Counter:
    """The counter that belongs to a device. Raises OSError, ValueError or NVMLError where there is none."""
    return Rapl.find(powercap) if device_index(device) is None else Nvml(device)


class Nvml:
    """The GPU's own counter of millijoules since its driver was loaded."""

    def __init__(self, device: str) -> None:
        pynvml.nvmlInit()
        try:
            self._handle = nvml_handle(device)
        except BaseException:
            pynvml.nvmlShutdown()
            raise
        self.source = "NVML total energy counter, this GPU alone"

    def joules(self) -> float:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3

    def close(self) -> None:
        pynvml.nvmlShutdown()


@dataclass
class _Zone:
    folder: Path
    range: int
    """Microjoules after which the counter starts again at 0."""
    last: int
    total: int = 0


class Rapl:
    """Linux's powercap counters of the processor packages (RAPL), in microjoules, which wrap around."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._zones = [
            _Zone(f, range=_number(f / "max_energy_range_uj"), last=_number(f / "energy_uj")) for f in folders
        ]
        names = ", ".join((folder / "name").read_text().strip() for folder in folders)
        self.source = printable(f"Linux RAPL: {names}; whole processor packages, other processes counted")

    @classmethod
    def find(cls, powercap: Path) -> Rapl:
        """The packages of this machine. Zones within a package (core, dram) are left out: they would be counted twice
        or partly.
        """
        folders = sorted(powercap.glob("intel-rapl:*")) if powercap.is_dir() else []
        packages = [f for f in folders if f.name.count(":") == 1 and _name(f).startswith("package")]
        if not packages:
            raise ValueError(f"no RAPL package in {powercap}")
        return cls(packages)

    def joules(self) -> float:
        for zone in self._zones:
            now = _number(zone.folder / "energy_uj")
            zone.total += now - zone.last if now >= zone.last else now - zone.last + zone.range
            zone.last = now
        return sum(zone.total for zone in self._zones) / 1e6

    def close(self) -> None:
        pass


def _name(folder: Path) -> str:
    try:
        return (folder / "name").read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except OSError as error:
        raise OSError(error.errno, f"{path}: {error.strerror}") from error
