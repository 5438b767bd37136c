"""What `engine run` answers on a device, beside what it answers on this host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from small import engine

X = np.random.default_rng(2).standard_normal((10, 16), np.float32)
"""Ten examples for the small network."""


def far(bundle: Path, folder: Path, *on: str) -> float:
    """How far what a device answers lies from what this host does."""
    np.savez(folder / "x.npz", x=X)
    here, there = (answers(bundle, folder, *where) for where in ((), on))
    return max(float(np.abs(here[name] - there[name]).max()) for name in here)


def answers(bundle: Path, folder: Path, *on: str) -> dict[str, Any]:
    """The outputs for `folder`/x.npz."""
    done = engine("run", str(bundle), "-i", str(folder / "x.npz"), "-o", str(folder / "y.npz"), *on)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "y.npz") as arrays:
        return dict(arrays)
