"""A pytest plugin (`-p tests.support.stand_in`) that makes every trial run the job in STAND_IN instead of training."""

from __future__ import annotations

import os

from touchstone.runs import isolation, trials

trials.JOB = os.environ["STAND_IN"]
isolation.PRELOAD = ()
