"""Ctrl-C reaches the user's command even when Python lost it."""

from __future__ import annotations

import signal
import subprocess
import sys

LOST = """
import os, signal, sys
from edgewright.cli.console import Console
from edgewright.cli.interrupt import watch

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

watch()
console = Console()
console.progress("before", 0, 0)
Finalised()
print("still there", flush=True)
try:
    console.progress("after", 0, 0)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_an_interrupt_that_a_finaliser_swallowed_is_raised_by_the_next_step() -> None:
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60, check=True)
    assert "Exception ignored" in done.stderr, "the premise: Python drops it"
    assert done.stdout.split("\n")[:2] == ["still there", "stopped"]


def test_an_error_after_an_interrupt_is_an_interrupt() -> None:
    script = LOST + "from edgewright.cli import _call\nsys.exit(_call(['verify', 'nowhere']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1][:11]) == (130, "interrupted")


def test_an_interrupt_while_a_step_works_is_raised_at_once() -> None:
    script = (
        "import os, signal\nfrom edgewright.cli.interrupt import watch\nwatch()\nos.kill(os.getpid(), signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode in (-signal.SIGINT, 130)
