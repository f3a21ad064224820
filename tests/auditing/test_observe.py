"""Watching a script: libraries are patched when they are imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from touchstone.auditing.observing.observe import _ImportHook


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "imported_later.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "imported_later", raising=False)
    return "imported_later"


def test_a_module_is_patched_when_it_is_imported_although_it_was_looked_for_before(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # datasets looks for torch with find_spec, and does not import it.
    patched: list[ModuleType] = []
    hook = _ImportHook({module: [patched.append]})
    monkeypatch.setattr(sys, "meta_path", [hook, *sys.meta_path])
    assert importlib.util.find_spec(module) is not None
    assert patched == []
    imported = importlib.import_module(module)
    assert patched == [imported]
    importlib.reload(imported)
    assert patched == [imported]
