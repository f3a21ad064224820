"""Energy in joules, read from a hardware counter. Where there is no counter there is a reason, never an estimate."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from typing_extensions import Self

from touchstone.fields import Amount, FrozenModel, Line, optional_import, printable
from touchstone.records.machine import device_index, gpu_uuid

POWERCAP = Path("/sys/class/powercap")
LOOK_SECONDS = 30.0
"""Seconds between two readings of a counter. A RAPL counter usually wraps around after 262 kJ, which a package of 400 W
uses in eleven minutes; it must be read at least once in that time."""


class Energy(FrozenModel):
    """Energy in joules with its source, or the reason why it is not known."""

    joules: Amount | None
    source: Line | None
    reason: Line | None

    @classmethod
    def unknown(cls, reason: str) -> Self:
        """Return an energy that is not known."""
        return cls(joules=None, source=None, reason=printable(reason))


def total_energy(energies: Sequence[Energy]) -> Energy:
    """Return the sum of what several counters measured, each for a part of one run; unknown if one of them is."""
    if len(energies) == 1:
        return energies[0]
    if (unknown := next((energy for energy in energies if energy.joules is None), None)) is not None:
        return unknown
    joules = sum(energy.joules or 0.0 for energy in energies)
    return Energy(joules=round(joules, 3), source=f"{energies[0].source}; sum of {len(energies)}", reason=None)


class CounterError(Exception):
    """An energy counter does not exist or cannot be read."""


class Counter(Protocol):
    """An energy counter. `joules` starts at an arbitrary value and only grows; it may raise CounterError."""

    source: str

    def joules(self) -> float: ...
    def close(self) -> None: ...


class EnergyMeter:
    """Measures the energy that a block of code uses.

    >>> with EnergyMeter("cpu") as meter:
    ...     pass
    >>> (meter.energy.joules is None) == (meter.energy.reason is not None)
    True

    On a GPU this is the energy of that GPU (NVML's counter, Volta and newer), on the CPU that of all processor packages
    (Linux RAPL). Other processes on them are included; memory, fans and power supply are not.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
    """

    def __init__(self, device: str, *, powercap: Path = POWERCAP, look_seconds: float = LOOK_SECONDS) -> None:
        self.energy = Energy.unknown("the measurement has not ended")
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
        except CounterError as error:
            if self._counter is not None:
                self._counter.close()
            self.energy = Energy.unknown(f"no energy counter: {error}")
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
        except CounterError as problem:
            self.energy = Energy.unknown(f"no energy counter: {problem}")
        self._counter.close()

    def _look(self) -> None:
        """Read the counter now and then, so that no wrap-around is missed."""
        while not self._done.wait(self._look_seconds):
            try:
                assert self._counter is not None
                self._counter.joules()
            except CounterError:
                return  # the last reading meets the same error and reports it


def open_counter(device: str, *, powercap: Path = POWERCAP) -> Counter:
    """Return the energy counter of a device. Raises CounterError if there is none."""
    return Rapl.find(powercap) if device_index(device) is None else Nvml(device)


class Nvml:
    """The energy counter of one GPU, which counts millijoules since the driver was loaded."""

    source = "NVML total energy counter, this GPU alone"

    def __init__(self, device: str) -> None:
        try:
            self._pynvml = optional_import("pynvml")
        except ModuleNotFoundError as error:
            raise CounterError(str(error)) from error
        self._call(self._pynvml.nvmlInit)
        try:
            # By UUID: CUDA_VISIBLE_DEVICES renumbers torch's devices, but not NVML's.
            self._handle = self._call(self._pynvml.nvmlDeviceGetHandleByUUID, gpu_uuid(device))
        except BaseException:
            self.close()
            raise

    def joules(self) -> float:
        return float(self._call(self._pynvml.nvmlDeviceGetTotalEnergyConsumption, self._handle)) / 1e3

    def close(self) -> None:
        self._pynvml.nvmlShutdown()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._pynvml.NVMLError as error:
            raise CounterError(str(error)) from error


@dataclass
class _Zone:
    """The counter of one processor package, in microjoules.

    Attributes:
        range: the value after which the counter starts again at 0.
        last: its last reading.
        total: what it has counted since its first reading.
    """

    folder: Path
    range: int
    last: int
    total: int = 0


class Rapl:
    """The energy counters of the processor packages (RAPL) in Linux's powercap interface, which wrap around."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._zones = [
            _Zone(folder, range=_number(folder / "max_energy_range_uj"), last=_number(folder / "energy_uj"))
            for folder in folders
        ]
        names = ", ".join(_name(folder) for folder in folders)
        self.source = printable(f"Linux RAPL: {names}; whole processor packages, other processes counted")

    @classmethod
    def find(cls, powercap: Path) -> Rapl:
        """Return the packages of this machine.

        Zones inside a package (core, dram) and psys, which contains the packages, would be counted twice.
        """
        folders = sorted(powercap.glob("intel-rapl:*")) if powercap.is_dir() else []
        packages = [f for f in folders if f.name.count(":") == 1 and _name(f).startswith("package")]
        if not packages:
            raise CounterError(f"no RAPL package in {powercap}")
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
        raise CounterError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise CounterError(f"{path}: {error}") from error
