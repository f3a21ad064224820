"""Run a command in a forked process that has torch and transformers imported: seconds less than a new interpreter."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.zoo.run import forked

TIMEOUT = 240.0


@dataclass(frozen=True)
class Ended:
    """What a command left: its exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run_forked(main: Callable[[Sequence[str]], int], words: Sequence[str], *, folder: Path) -> Ended:
    """Call the main function of a command in a forked process, with `folder` as its working folder."""
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary) / name for name in ("stdout", "stderr")]
        process = forked(_call, main, list(words), str(folder), [str(file) for file in files])
        process.join(TIMEOUT)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(f"{' '.join(words)} did not end within {TIMEOUT:.0f} s")
        stdout, stderr = (file.read_text(encoding="utf-8") for file in files)
        return Ended(process.exitcode, stdout, stderr)


def _call(main: Callable[[Sequence[str]], int], words: list[str], folder: str, files: list[str]) -> None:
    import datasets

    os.chdir(folder)
    datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"  # nothing is read from or left for another run
    os.environ["COLUMNS"] = "100"
    sys.stdout.flush()
    sys.stderr.flush()
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    raise SystemExit(main(words))
