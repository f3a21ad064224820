"""With `-n`, several processes share the cores: each is given one thread, before torch is imported and takes all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def zoo_assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the zoo's scripts run. Tests work on copies of it."""
    from tests.zoo.run import make_assets

    return make_assets(tmp_path_factory.mktemp("zoo"))
