"""`python -m suite hardware`."""

from __future__ import annotations

import argparse

EPILOG = """\
what you see:
  everything a record says of where a run happened: the machine's id (made of
  CPU and GPU model, counts and memory; no host name, nothing that changes from
  boot to boot), the folder its records go to, what counts energy here, the
  device's peak arithmetic with its source (or that it is not known: records
  hold no utilisation then), versions, flags, environment.

examples:
  python -m suite hardware
  python -m suite hardware --device cpu
  python -m suite hardware --json | jq .hardware.id

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
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import sys

    from suite.sessions.options import OptionError, resolve_device

    try:
        device = resolve_device(options.device)
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _hardware(device, as_json=options.json)


def _hardware(device: str, *, as_json: bool) -> int:
    import json

    from rich.table import Table

    from suite.commands.terminal import console
    from suite.records.efficiency import peak_of
    from suite.records.hardware import EnergyMeter, describe_hardware, describe_software
    from suite.sessions.figures import size
    from suite.sessions.options import PRECISIONS

    hardware, software = describe_hardware(device), describe_software()
    with EnergyMeter(device) as meter:
        pass
    peaks = {name: peak_of(hardware, software=software, precision=name) for name in PRECISIONS}
    if as_json:
        everything = {
            "hardware": hardware.model_dump(mode="json") | {"folder": hardware.folder},
            "software": software.model_dump(mode="json"),
            "energy": {"source": meter.energy.source, "reason": meter.energy.reason},
            "peaks": {name: {"flops_per_second": flops, "source": source} for name, (flops, source) in peaks.items()},
        }
        print(json.dumps(everything, indent=2))
        return 0
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    rows = {"folder of its records": f"results/{hardware.folder}"}
    for name, value in hardware.model_dump().items():
        if value is not None:
            rows[name.replace("_", " ").removesuffix(" bytes")] = size(value) if name.endswith("_bytes") else str(value)
    rows["energy counter"] = meter.energy.source or f"none ({meter.energy.reason})"
    for name, (flops, source) in peaks.items():
        known = (
            "not known, so records hold no utilisation" if flops is None else f"{flops / 1e12:.4g} TFLOP/s ({source})"
        )
        rows[f"peak in {name}"] = known
    rows["python"] = f"{software.python} on {software.platform}"
    for kind in ("packages", "flags", "environment"):
        for name, value in getattr(software, kind).items():
            rows[f"{kind.removesuffix('s')} {name}"] = value
    for name, value in rows.items():
        table.add_row(name, value)
    console().print(table, markup=False)
    return 0
