"""What holds for all tests: no verdict hangs on how busy the machine is."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# The networks here are too small for two threads, which only wait for one another where others work too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A process may be put aside for longer than hypothesis gives an example.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
