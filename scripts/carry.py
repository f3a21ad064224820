"""Gathers what a machine without internet needs: wheels for its Python, and a mirror of data and checkpoints.

    python scripts/carry.py wheels DIR --python 3.12 --glibc 2.39     # what `python3 --version` and `ldd --version` say
    python scripts/carry.py mirror DIR --profile course --task token-classification [--download]

Wheels need pip alone; torch and the CUDA packages stay behind, for a machine with a GPU has its own. The mirror needs
the installed suite: it lists the files of each repository with their sizes, and fetches them where asked to.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OWN = ("torch", "triton", "nvidia-", "cuda-")
"""Beginnings of the names of what the target has, but `nvidia-ml-py`, which reads its counters."""
SOURCE_ONLY = ("rouge-score", "seqeval")
"""Not on PyPI as wheels; made here, for they are Python alone."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    wheels = verbs.add_parser("wheels", help="all packages but torch and CUDA's, of the versions in constraints.txt")
    wheels.add_argument("directory", type=Path, metavar="DIR")
    wheels.add_argument("--python", required=True, metavar="3.N", help="the target's Python")
    wheels.add_argument("--glibc", default="2.28", metavar="2.N", help="the target's C library (default: 2.28)")
    wheels.add_argument("--machine", default="x86_64", help="the target's processor (default: x86_64), or aarch64")
    wheels.set_defaults(run=gather_wheels)
    mirror = verbs.add_parser("mirror", help="which files a profile reads, how large they are; --download fetches them")
    mirror.add_argument("directory", type=Path, metavar="DIR")
    mirror.add_argument("--profile", default="course", metavar="NAME")
    mirror.add_argument("--task", action="append", default=[], help="repeatable; default: all of the profile")
    mirror.add_argument("--download", action="store_true")
    mirror.set_defaults(run=gather_mirror)
    options = parser.parse_args()
    return int(options.run(options))


# Wheels ---------------------------------------------------------------------------------------------------------------


def gather_wheels(options: argparse.Namespace) -> int:
    directory = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["tests"], "pip"]
    pins = ["-c", str(ROOT / "constraints.txt")]
    if pip("wheel", "-q", "--no-deps", "-w", str(directory), *pins, *SOURCE_ONLY):
        return 1
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", options.python]
    target += [f"--platform={tag}" for tag in platforms(options.glibc, options.machine)]
    target += ["--find-links", str(directory)]
    with tempfile.TemporaryDirectory() as nowhere:
        report = Path(nowhere) / "report.json"
        resolve = ["--dry-run", "--ignore-installed", "--target", nowhere, "--report", str(report)]
        if pip("install", "-q", *resolve, *target, *pins, *wanted):
            return 1
        found = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
    chosen = [f"{found_['name']}=={found_['version']}" for found_ in found if not is_own(found_["name"])]
    if pip("download", "-q", "--no-deps", "-d", str(directory), *target, *chosen):
        return 1
    files = list(directory.glob("*.whl"))
    print(f"{len(files)} wheels, {sum(file.stat().st_size for file in files) / 2**20:.0f} MiB, in {directory}")
    return 0


def pip(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]).returncode


def platforms(glibc: str, machine: str) -> list[str]:
    """Tags of all wheels that the target can take: pip takes a tag as it is written, and no older one."""
    minor = int(glibc.removeprefix("2."))
    return [
        *(f"manylinux_2_{n}_{machine}" for n in range(minor, 4, -1)),
        f"manylinux2014_{machine}",
        f"linux_{machine}",
    ]


def is_own(name: str) -> bool:
    name = name.lower().replace("_", "-")
    return name != "nvidia-ml-py" and (name in OWN or name.startswith(OWN[2:]))


# Mirror ---------------------------------------------------------------------------------------------------------------


def gather_mirror(options: argparse.Namespace) -> int:
    sys.path.insert(0, str(ROOT))
    import huggingface_hub
    from huggingface_hub.errors import DryRunError, HfHubHTTPError, LocalEntryNotFoundError

    silent = 0
    for (kind, name, revision), (patterns, ignored) in repositories(options).items():
        folder = options.directory / f"{kind}s" / name
        here = {file: file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
        print(f"{folder}: {f'has {mebibytes(sum(here.values()))}' if here else 'is not there'}; read are {patterns}")
        if revision == "none":
            print("    is on no hub: the README says what it holds")
            continue
        try:
            found = huggingface_hub.snapshot_download(
                name,
                repo_type=kind,
                revision=revision,
                local_dir=folder,
                allow_patterns=patterns,
                ignore_patterns=ignored,
                dry_run=not options.download,
            )
        except (DryRunError, LocalEntryNotFoundError, HfHubHTTPError) as error:
            print(f"    the hub does not say what there is at revision {revision}: {str(error).splitlines()[0]}")
            silent += 1
            continue
        for file in found if isinstance(found, list) else []:
            print(f"    {mebibytes(file.file_size or 0):>12}  {file.filename}{' (not there)' * file.will_download}")
    return int(silent > 0)


def repositories(options: argparse.Namespace) -> dict[tuple[str, str, str], tuple[list[str], list[str]]]:
    """(kind, id, revision) of each repository to the patterns of the files that are read, and of those that are not."""
    from touchstone.interface import plan
    from touchstone.sources.hub import BUILDERS, HubData
    from touchstone.sources.pretrained import DESCRIPTION, WEIGHTS, HubCheckpoint

    found: dict[tuple[str, str, str], tuple[list[str], list[str]]] = {}
    for spec in plan.choose_specs(options.task, profile=options.profile, files=[]):
        data: Any = spec.data
        if isinstance(data, HubData):
            for split, (name, revision) in data.repositories.items():
                patterns, _ = found.setdefault(("dataset", name, revision), ([], []))
                patterns += [p for suffix in BUILDERS if (p := f"*{split}*{suffix}") not in patterns]
        if isinstance(spec.checkpoint, HubCheckpoint):
            patterns = [*DESCRIPTION, *([WEIGHTS] if spec.checkpoint.pretrained else [])]
            found["model", spec.checkpoint.id, spec.checkpoint.revision] = (patterns, ["*/*"])
    return found


def mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


if __name__ == "__main__":
    sys.exit(main())
