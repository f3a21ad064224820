"""A pytest plugin (`-p tests.support.stand_in`): every trial runs the job named by STAND_IN instead of training."""

from __future__ import annotations

import os

from touchstone.runs import isolation as running
from touchstone.runs import trials

trials.JOB = os.environ["STAND_IN"]
running.PRELOAD = ()
