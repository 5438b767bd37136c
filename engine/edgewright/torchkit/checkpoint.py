"""Keeps the state of a training run, so that a killed one goes on where it was."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

NAME = "training.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write the state in one piece: a kill leaves the old file or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{NAME}.{os.getpid()}"
    torch.save(state, partial)
    os.replace(partial, folder / NAME)


def load(folder: Path, key: str) -> dict[str, Any] | None:
    """The state that was saved under `key`; None when there is none, or it belongs to another run."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, zipfile.BadZipFile):
        return None
    return state if state.get("key") == key else None
