"""What is gathered for a machine without internet."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from scripts import carry


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        ("torch", True),
        ("nvidia-cublas", True),
        ("cuda_bindings", True),
        ("triton", True),
        ("torchmetrics", False),
        ("nvidia-ml-py", False),
        ("numpy", False),
    ],
)
def test_only_torch_and_cuda_stay_behind(name: str, stays: bool) -> None:
    assert carry.is_own(name) == stays


def test_a_wheel_for_an_older_c_library_is_taken_and_none_for_a_newer_one() -> None:
    tags = carry.platforms("2.28", "x86_64")

    assert tags[0] == "manylinux_2_28_x86_64"
    assert set(tags) > {"manylinux_2_17_x86_64", "manylinux2014_x86_64"}
    assert "manylinux_2_29_x86_64" not in tags


def options(directory: Path, **values: Any) -> Any:
    return SimpleNamespace(
        **{"directory": directory, "profile": "course", "task": ["token-classification"], "download": False} | values
    )


@pytest.mark.parametrize("download", [False, True])
def test_a_mirror_takes_what_the_spec_pins_and_nothing_else(
    download: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Any, ...]] = []

    def snapshot(name: str, **how: Any) -> Any:
        asked.append(
            (how["repo_type"], name, how["local_dir"], how["dry_run"], "*.safetensors" in how["allow_patterns"])
        )
        return [SimpleNamespace(filename="train.parquet", file_size=3 * 2**20, will_download=True)]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)

    assert carry.gather_mirror(options(tmp_path, download=download)) == 0
    assert [
        ("dataset", "eriktks/conll2003", tmp_path / "datasets/eriktks/conll2003", not download, False),
        ("model", "google-bert/bert-base-cased", tmp_path / "models/google-bert/bert-base-cased", not download, True),
    ] == asked
    assert "3.0 MiB  train.parquet (not there)" in capsys.readouterr().out


def test_a_hub_that_does_not_answer_is_said_and_the_exit_code_is_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def silent(name: str, **how: Any) -> Any:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", silent)

    assert carry.gather_mirror(options(tmp_path)) == 1
    assert "refs/convert/parquet: no connection" in capsys.readouterr().out
