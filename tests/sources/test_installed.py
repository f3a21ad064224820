"""The Python sources of installed packages as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from touchstone.sources import (
    Access,
    DataSettings,
    InstalledCode,
    MicroworldCheckpoint,
    SourceError,
    fingerprint,
    open_source,
)

GPT2 = MicroworldCheckpoint(architecture="gpt2", layers=1, hidden=32, heads=2, tokenizer="byte-bpe")
FILES = {f"part{number % 3}/module{number}.py": f"x = {number}\n" for number in range(40)}


def install(folder: Path, package: str = "minerva", files: dict[str, str | bytes] | None = None) -> Path:
    """Write a package into `folder`."""
    for name, content in ({"__init__.py": '"""Wise."""\n', **FILES} if files is None else files).items():
        path = folder / package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / package


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages are imported from."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def codes(split: str, access: Access | None = None, **settings: Any) -> list[str]:
    data = InstalledCode(**{"packages": ("minerva",)} | settings)
    return list(open_source(data, GPT2, access=access).examples(split, columns=("code",))["code"])


def test_every_file_is_in_one_split_in_a_drawn_order(site: Path) -> None:
    install(site)
    train, validation = codes("train"), codes("validation")
    assert sorted([*FILES.values(), '"""Wise."""\n']) == sorted([*train, *validation])
    assert 0 < len(validation) < 15
    assert codes("train") == train
    assert sorted(train) != train


def test_the_split_and_order_of_a_file_do_not_depend_on_other_files_or_packages(site: Path, tmp_path: Path) -> None:
    folder = install(site)
    before = codes("train")
    (folder / "another.py").write_text("y = 1\n")
    install(site, "second")
    assert [code for code in codes("train") if code != "y = 1\n"] == before
    both, swapped = (codes("train", packages=names) for names in (("minerva", "second"), ("second", "minerva")))
    assert both == swapped
    assert len(before) < len(both)


def test_another_seed_draws_other_files(site: Path) -> None:
    install(site)
    assert codes("validation") != codes("validation", seed=7)
    assert codes("train")[:5] == codes("train", train_files=5)
    assert codes("validation", validation_fraction=0.5)[:3] == codes(
        "validation", validation_fraction=0.5, validation_files=3
    )


def test_another_version_has_another_fingerprint(site: Path) -> None:
    folder = install(site)
    source = open_source(InstalledCode(packages=("minerva",)), GPT2)
    before = fingerprint(source.examples("train", columns=("code",)))
    assert fingerprint(source.examples("train", columns=("code",))) == before
    for path in folder.rglob("*.py"):
        path.write_text(path.read_text() + "# changed\n")
    assert fingerprint(source.examples("train", columns=("code",))) != before


def test_only_small_texts_are_read_in_the_encoding_that_they_declare(site: Path) -> None:
    files: dict[str, str | bytes] = {
        "plain.py": "a = 1\n",
        "latin.py": "# -*- coding: latin-1 -*-\nname = 'é'\n".encode("latin-1"),
        "broken.py": b"name = '\xff\xfe'\n",
        "empty.py": "",
        "blank.py": "\n\n",
        "table.py": "x = 1\n" * 20_000,
        "windows.py": b"b = 2\r\n",
        "data.txt": "no code\n",
        "__pycache__/plain.cpython-311.pyc": b"\0",
    }
    install(site, files=files)
    read = [code for split in ("train", "validation") for code in codes(split, validation_fraction=0.5, seed=3)]
    assert sorted(read) == ["# -*- coding: latin-1 -*-\nname = 'é'\n", "a = 1\n", "b = 2\n"]


def test_a_single_module_is_a_package_of_one_file(site: Path) -> None:
    (site / "lonely_module.py").write_text("z = 3\n")
    install(site)
    everything = [
        code for split in ("train", "validation") for code in codes(split, packages=("minerva", "lonely_module"))
    ]
    assert "z = 3\n" in everything


def test_no_package_is_imported(site: Path) -> None:
    install(site, files={"__init__.py": "raise RuntimeError('imported')\n", **FILES})
    assert len(codes("train")) > 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"packages": ("no_such_package",)}, "package 'no_such_package' is not installed: install it, or leave it out"),
        ({"packages": ("sys",)}, "package 'sys' has no Python sources"),
        ({"train_files": 500}, r"minerva have 3\d files of at most 100000 bytes for train, but train_files = 500"),
        ({"largest_file": 1}, "minerva have 0 files of at most 1 bytes for train: name more packages"),
    ],
)
def test_missing_packages_and_files_are_an_error_with_the_remedy(
    site: Path, settings: dict[str, Any], message: str
) -> None:
    install(site)
    with pytest.raises(SourceError, match=message):
        codes("train", **settings)


def test_other_splits_and_columns_are_refused(site: Path) -> None:
    install(site)
    source = open_source(InstalledCode(packages=("minerva",)), GPT2)
    with pytest.raises(SourceError, match="no split 'test'"):
        source.examples("test", columns=("code",))
    with pytest.raises(SourceError, match="no column 'text': it has code"):
        source.examples("train", columns=("text",))


def test_the_users_data_replaces_it(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"code": "mine = 1"}\n')
    (tmp_path / "validation.jsonl").write_text('{"code": "mine = 2"}\n')
    assert codes("train", Access(dataset=tmp_path), packages=("no_such_package",)) == ["mine = 1"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"packages": []}, "packages"),
        ({"packages": ["numpy", "numpy"]}, "packages has 'numpy' twice"),
        ({"packages": ["../etc"]}, "packages"),
        ({"packages": ["numpy.ma"]}, "packages"),
        ({"packages": ["numpy"], "rows": 3}, "rows"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter[Any](DataSettings).validate_python({"source": "installed-code"} | settings)


def test_packages_of_the_environment_are_real_code() -> None:
    rows = codes("train", packages=("numpy",), train_files=20)
    assert all(len(code) <= 100_000 for code in rows)
    assert "import" in "".join(rows)
