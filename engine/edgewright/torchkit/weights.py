"""A module's weights: their digest, and the bytes they are kept as."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn


def digest_of(module: nn.Module) -> str:
    """The sha-256 of every entry of the state dict: names, types, shapes and values."""
    sha = hashlib.sha256()
    for name, value in module.state_dict().items():
        sha.update(name.encode())
        if isinstance(value, Tensor):
            sha.update(f" {value.dtype} {tuple(value.shape)} ".encode())
            sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            sha.update(repr(value).encode())
    return sha.hexdigest()


def to_bytes(module: nn.Module) -> bytes:
    """The state dict, as `read_into` takes it."""
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    return buffer.getvalue()


def read_into(module: nn.Module, path: Path) -> None:
    """Give `module`, whose structure must be the same, the weights kept in a file; it ends in evaluation mode."""
    module.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    module.eval()
