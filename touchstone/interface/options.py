"""Parse and check command-line options before anything starts.

Every error is one sentence that names the option, its value and the possible values. Importing this module is fast.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, cast, get_args

PROFILES = ("embedded", "small", "course")
Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
DEFAULT_SEED = 42
"""The default seed of transformers, and so of most published runs."""
MAX_SEEDS = 1000
"""More seeds are probably a typing error: 1,000 runs of ten seconds take three hours."""


class OptionError(ValueError):
    """A wrong value on the command line. The message is one sentence for the user."""


@dataclass(frozen=True)
class Overrides:
    """The values of `--dataset` and `--checkpoint`: task to absolute path."""

    datasets: dict[str, str] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)

    def given(self, task: str) -> dict[str, str]:
        """Return what replaces the data set and the checkpoint of this task's spec."""
        return {
            name: paths[task]
            for name, paths in (("dataset", self.datasets), ("checkpoint", self.checkpoints))
            if task in paths
        }


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse a list of seeds and ranges, such as `42`, `1,2,3` or `1-10`."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
        if match is None:
            raise OptionError(
                f"--seeds {text}: {part.strip()!r} is not a seed; give seeds and ranges such as 42, 1,2,3 or 1-10"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise OptionError(f"--seeds {text}: the range {part.strip()} is empty; the smaller seed comes first")
        if last - first >= MAX_SEEDS:
            raise OptionError(f"--seeds {text}: more than {MAX_SEEDS} seeds")
        seeds += range(first, last + 1)
    if repeated := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise OptionError(f"--seeds {text}: seed {repeated[0]} is listed twice")
    return tuple(seeds)


def parse_assignments(items: Sequence[str], *, option: str, tasks: Iterable[str]) -> dict[str, str]:
    """Parse `TASK=PATH` items into a dictionary from task to absolute path."""
    result: dict[str, str] = {}
    for item in items:
        task, equals, value = item.partition("=")
        if not equals or not task.strip() or not value.strip():
            raise OptionError(
                f"{option} {item}: write {option} TASK=PATH, such as {option} token-classification=/data/my-corpus"
            )
        task, value = task.strip(), os.path.expanduser(value.strip())
        one_of(task, tasks, option=option, what="task")
        if task in result:
            raise OptionError(f"{option} is given twice for {task}: {result[task]} and {value}")
        path = Path(value)
        if not path.exists():
            raise OptionError(f"{option} {item}: {path.absolute()} does not exist")
        result[task] = str(path.resolve())
    return result


def parse_mirror(text: str | None) -> Path | None:
    """Return the absolute path of a mirror of the hub, which must be a directory."""
    if text is None:
        return None
    path = Path(text).expanduser()
    if not path.is_dir():
        raise OptionError(
            f"--mirror {text}: {path.absolute()} is not a directory; "
            "a mirror contains datasets/ORG/NAME and models/ORG/NAME"
        )
    return path.resolve()


def parse_repository(text: str | None) -> str | None:
    """Check the name of a hub repository, so that a wrong name fails before training."""
    if text is None:
        return None
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, exported lazily

    try:
        validate_repo_id(text)
    except HFValidationError as error:
        raise OptionError(f"--push-to {text}: not a valid name of a hub repository: {error}") from error
    return text


def check_writable(directory: Path, *, option: str, what: str) -> None:
    """Check that a file can be written to a directory, which may not exist yet.

    Raises:
        OptionError: the directory is not writable.
    """
    parent = directory
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    try:
        if not parent.is_dir():
            raise NotADirectoryError(f"{parent} is not a directory")
        with tempfile.TemporaryFile(dir=parent) as file:
            file.write(bytes(4096))  # on a full disk, files can be created but not written
    except OSError as error:
        raise OptionError(
            f"{option} {directory}: cannot write a {what} there ({error}); choose another directory"
        ) from error


def split_task(text: str) -> tuple[str, str | None]:
    """Split TASK+VARIANT: `token-classification+first` is the variant `first` of `token-classification`."""
    name, plus, variant = text.partition("+")
    if not name or (plus and not variant):
        raise OptionError(f"--task {text}: write TASK or TASK+VARIANT, such as token-classification+first")
    return name, variant or None


def one_of(value: str, possible: Iterable[str], *, option: str, what: str) -> str:
    """Return the value if it is possible, else raise OptionError with the possible values and the closest one."""
    names = list(possible)
    if value in names:
        return value
    close = get_close_matches(value, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise OptionError(f"{option} {value}: there is no {what} {value!r}; possible: {', '.join(names) or 'none'}{hint}")


def resolve_device(text: str) -> str:
    """Check a device. `auto` is `cuda` if there is an NVIDIA GPU and a torch with CUDA, else `cpu`. No torch import."""
    if text == "auto":
        return "cuda" if _torch_is_built_for_cuda() and _count_gpus() else "cpu"
    if re.fullmatch(r"cpu|cuda(:\d{1,3})?", text) is None:
        raise OptionError(f"--device {text}: possible: auto, cpu, cuda, cuda:N")
    if text.startswith("cuda"):
        if not _torch_is_built_for_cuda():
            raise OptionError(
                f"--device {text}: this torch is built without CUDA; install a build with CUDA, or use --device cpu"
            )
        n, index = _count_gpus(), int(text.partition(":")[2] or 0)
        if index >= n:
            raise OptionError(f"--device {text}: the driver finds {n or 'no'} NVIDIA GPU{'' if n == 1 else 's'}")
    return text


def parse_launch(text: str | None, *, device: str) -> tuple[str, ...]:
    """Split the command that starts the training processes, and resolve its first word to a path.

    The directory of this Python is searched before PATH: torchrun of another environment would start another Python.

    Returns:
        The words of the command; () without the option.
    """
    if text is None:
        return ()
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise OptionError(f"--launch {text}: {error}; quote it as in a shell") from error
    if not words:
        raise OptionError('--launch: the command is empty; give one such as "torchrun --standalone --nproc-per-node 2"')
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = shutil.which(words[0], path=places)
    if found is None:
        raise OptionError(f"--launch {text}: no command {words[0]!r} in the directory of this Python or on PATH")
    if device not in ("cpu", "cuda"):
        raise OptionError(f"--launch with --device {device}: each process takes a different GPU; use cuda or cpu")
    return (found, *words[1:])


def launched_by(launcher: Sequence[str]) -> str:
    """Format a launcher's command for a person, without the path of its first word."""
    return " ".join((Path(launcher[0]).name, *launcher[1:]))


def check_precision(text: str, *, device: str) -> Precision:
    """Check a precision. fp16 needs a GPU."""
    one_of(text, PRECISIONS, option="--precision", what="precision")
    if text == "fp16" and device == "cpu":
        raise OptionError(
            "--precision fp16: needs a GPU, because its loss scaling requires CUDA; use fp32 or bf16 on cpu"
        )
    return cast(Precision, text)


def parse_timeout(text: str | None) -> float | None:
    """Parse a time such as 90, 15m or 2h into seconds."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise OptionError(f"--timeout {text}: not a time; write seconds, or add s, m or h, such as 90, 15m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _count_gpus() -> int:
    """Count the NVIDIA GPUs that a run would see, by CUDA_VISIBLE_DEVICES if it is set, else by the driver."""
    mask = os.environ.get("CUDA_VISIBLE_DEVICES")
    if mask is not None:
        entries = [entry for entry in mask.split(",") if entry.strip()]
        return 0 if entries[:1] == ["-1"] else len(entries)
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


def _torch_is_built_for_cuda() -> bool:
    """Read torch's version file, because importing torch takes seconds and every session needs the answer."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    return re.search(r"^cuda\b[^=]*=\s*['\"]", text, flags=re.MULTILINE) is not None
