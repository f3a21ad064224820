"""`touchstone hardware`."""

from __future__ import annotations

import argparse

EPILOG = """\
what you see:
  everything a record says of where a run happened: the machine's id (made of
  CPU and GPU model, counts and memory; no host name, nothing that changes from
  boot to boot), the folder its records go to, what counts energy here,
  versions, flags, environment.
  --measure also tries how fast the device is now, in about a second a
  precision: products of matrices, attention with its gradient, going over
  memory. Every training run does that for itself; utilisation and floor of its
  record are made of it (docs/speed.md).

examples:
  touchstone hardware
  touchstone hardware --measure
  touchstone hardware --device cpu
  touchstone hardware --json | jq .hardware.id

exit codes:
  0 shown; 2 there is no such device.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    parser = subparsers.add_parser(
        name,
        help="what a record says about this machine",
        description="Shows what is recorded about this machine and its software.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda, cuda:N")
    parser.add_argument("--measure", action="store_true", help="try how fast the device is")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import sys

    from touchstone.interface.options import OptionError, resolve_device

    try:
        device = resolve_device(options.device)
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _hardware(device, measure=options.measure, as_json=options.json)


def _hardware(device: str, *, measure: bool, as_json: bool) -> int:
    import json

    from rich.table import Table

    from touchstone.cli.terminal import console
    from touchstone.interface.display import size
    from touchstone.interface.options import PRECISIONS
    from touchstone.records.energy import EnergyMeter
    from touchstone.records.machine import describe_hardware, describe_software
    from touchstone.records.rates import STATE_BYTES, measure_rates

    hardware, software = describe_hardware(device), describe_software()
    with EnergyMeter(device) as meter:
        pass
    precisions = PRECISIONS if measure else ()
    rates = {name: measure_rates(device, precision=name, state_bytes=STATE_BYTES[1]) for name in precisions}
    if as_json:
        everything = {
            "hardware": hardware.model_dump(mode="json") | {"folder": hardware.folder},
            "software": software.model_dump(mode="json"),
            "energy": {"source": meter.energy.source, "reason": meter.energy.reason},
            "rates": {name: found.model_dump(mode="json") for name, found in rates.items()},
        }
        print(json.dumps(everything, indent=2))
        return 0
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    rows = {"folder of its records": f"results/{hardware.folder}"}
    for name, value in hardware.model_dump().items():
        if value is not None:
            rows[name.replace("_", " ").removesuffix(" bytes")] = size(value) if name.endswith("_bytes") else str(value)
    rows["energy counter"] = meter.energy.source or f"none ({meter.energy.reason})"
    for name, found in rates.items():
        if found.reason:
            rows[f"rates in {name}"] = f"not known: {found.reason}"
        for what, rate, unit in (("products", found.gemm, "GFLOP/s"), ("attention", found.attention, "GFLOP/s")):
            if rate is not None:
                rows[f"{what} in {name}"] = f"{rate.per_second / 1e9:,.4g} {unit} ({rate.source})"
        if found.memory is not None and name == precisions[0]:  # it is the same in all of them
            rows["memory rate"] = f"{found.memory.per_second / 1e9:,.4g} GB/s ({found.memory.source})"
    if not measure:
        rows["rates"] = "not measured: --measure does, and every training run for its record"
    rows["python"] = f"{software.python} on {software.platform}"
    for kind in ("packages", "flags", "environment"):
        for name, value in getattr(software, kind).items():
            rows[f"{kind.removesuffix('s')} {name}"] = value
    for name, value in rows.items():
        table.add_row(name, value)
    console().print(table, markup=False)
    return 0
