"""Keeps the state of a training run, so that a killed one goes on where it was."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from edgewright.errors import OutputError

NAME = "training.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write the state in one piece: a kill leaves the old file or the new one.

    Raises: OutputError when the folder cannot be written.
    """
    partial = folder / f".{NAME}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, partial)
        os.replace(partial, folder / NAME)
    except (OSError, RuntimeError) as cause:  # a full disk is a RuntimeError to torch
        raise OutputError(
            f"the state of the training cannot be written to {folder}: {cause}; free some space, or set --cache"
        ) from cause


def load(folder: Path, key: str) -> dict[str, Any] | None:
    """The state that was saved under `key`; None when there is none, it is damaged, or belongs to another run."""
    try:
        state: Any = torch.load(folder / NAME, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError):
        return None
    return state if isinstance(state, dict) and state.get("key") == key else None
