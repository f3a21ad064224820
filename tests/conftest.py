"""With `-n`, several processes share the cores: each is given one thread, before torch is imported and takes all."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
