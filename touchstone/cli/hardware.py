"""`touchstone hardware`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from touchstone.records.efficiency import Rates
    from touchstone.records.energy import Energy
    from touchstone.records.machine import Hardware, Software

DESCRIPTION = "Show what records say about this machine and its software."
EPILOG = """\
output:
  The machine's id (made from the CPU and GPU models, their counts and the
  memory size, so it is the same after a reboot; no host name), the directory
  its records are written to, the energy counter, package versions, torch flags
  and environment variables.

  --measure also measures how fast the device is now: matrix products, attention
  and memory. It takes about a second per precision. Every training run does the
  same, and its record's utilisation and floor are based on it (docs/speed.md).

examples:
  touchstone hardware
  touchstone hardware --measure
  touchstone hardware --device cpu
  touchstone hardware --json | jq .hardware.id

exit codes:
  0 success; 2 the device does not exist.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda, cuda:N")
    parser.add_argument("--measure", action="store_true", help="measure how fast the device is")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(options: argparse.Namespace) -> int:
    from touchstone.interface.options import PRECISIONS, resolve_device
    from touchstone.records.energy import EnergyMeter
    from touchstone.records.machine import describe_hardware, describe_software
    from touchstone.records.rates import STATE_BYTES, measure_rates

    device = resolve_device(options.device)
    hardware, software = describe_hardware(device), describe_software()
    with EnergyMeter(device) as meter:
        pass
    precisions = PRECISIONS if options.measure else ()
    rates = {name: measure_rates(device, precision=name, state_bytes=STATE_BYTES[1]) for name in precisions}
    if options.json:
        _print_json(hardware, software, meter.energy, rates)
    else:
        _print_table(hardware, software, meter.energy, rates)
    return 0


def _print_json(hardware: Hardware, software: Software, energy: Energy, rates: dict[str, Rates]) -> None:
    everything = {
        "hardware": hardware.model_dump(mode="json") | {"folder": hardware.folder},
        "software": software.model_dump(mode="json"),
        "energy": {"source": energy.source, "reason": energy.reason},
        "rates": {name: found.model_dump(mode="json") for name, found in rates.items()},
    }
    print(json.dumps(everything, indent=2))


def _print_table(hardware: Hardware, software: Software, energy: Energy, rates: dict[str, Rates]) -> None:
    from rich.table import Table

    from touchstone.cli.shared import console
    from touchstone.interface.display import size

    rows = {"directory of its records": f"results/{hardware.folder}"}
    for name, value in hardware.model_dump().items():
        if value is not None:
            rows[name.replace("_", " ").removesuffix(" bytes")] = size(value) if name.endswith("_bytes") else str(value)
    rows["energy counter"] = energy.source or f"none ({energy.reason})"
    rows |= _rate_rows(rates) if rates else {"rates": "not measured; add --measure"}
    rows["python"] = f"{software.python} on {software.platform}"
    for kind in ("packages", "flags", "environment"):
        for name, value in getattr(software, kind).items():
            rows[f"{kind.removesuffix('s')} {name}"] = value
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(name, value)
    console().print(table, markup=False)


def _rate_rows(rates: dict[str, Rates]) -> dict[str, str]:
    rows: dict[str, str] = {}
    for name, found in rates.items():
        if found.reason:
            rows[f"rates in {name}"] = f"unknown: {found.reason}"
        for what, rate in (("matrix products", found.gemm), ("attention", found.attention)):
            if rate is not None:
                rows[f"{what} in {name}"] = f"{rate.per_second / 1e9:,.4g} GFLOP/s ({rate.source})"
        if found.memory is not None:  # the same in every precision
            rows.setdefault("memory rate", f"{found.memory.per_second / 1e9:,.4g} GB/s ({found.memory.source})")
    return rows
