"""Where tests of this room keep what they found, for the tables and the records at the end of the session.

Not in conftest.py: pytest imports that file under a name of its own, so a test that imported it would get other keys.
"""

from __future__ import annotations

import pytest

from touchstone.records.timing import AuditTime, TaskSpeed, WatchTime

SPEEDS = pytest.StashKey[list[TaskSpeed]]()
AUDITS = pytest.StashKey[list[AuditTime]]()
WATCHED = pytest.StashKey[WatchTime]()
