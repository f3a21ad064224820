"""A pytest plugin (`-p tests.stand_in`): trials run the job that STAND_IN names, in a server that imports nothing."""

from __future__ import annotations

import os

from suite.runs import running, trials

trials.JOB = os.environ["STAND_IN"]
running.PRELOAD = ()
