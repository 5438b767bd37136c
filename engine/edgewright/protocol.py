"""The messages between the host and the agent on a device: JSON lines, and arrays as files named by content.

A request is `{"id": 1, "op": "open", ...}`; its answer is `{"id": 1, "result": {...}}` or
`{"id": 1, "error": {"kind": "InputError", "message": "..."}}`, where `kind` is a class of `edgewright.errors`.
Answers come in the order of the requests. docs/agent.md tells what each operation takes and gives.

Part of the device set: Python 3.9 and numpy only.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgewright import errors

if TYPE_CHECKING:
    from edgewright.types import Array  # the supervisor knows no values: on a small device they take it a second

VERSION = 1
"""Both sides must speak the same version; `hello` finds out."""

OPERATIONS = (
    "hello",
    "ping",
    "device",
    "conditions",
    "open",
    "infer",
    "explore",
    "calibrate",
    "warm",
    "time",
    "spin",
    "profile",
    "memory",
    "meter",
    "rest",
    "unmeter",
    "close",
    "bye",
)

_KINDS = {
    kind.__name__: kind
    for kind in (
        errors.InputError,
        errors.ModelError,
        errors.BundleError,
        errors.OutputError,
        errors.RefusedError,
        errors.DeviceError,
        errors.PluginError,
    )
}


def encode(message: Mapping[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message in a line. Raises: DeviceError when it holds none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        shown = line[:80].decode(errors="replace").strip()
        raise errors.DeviceError(f"expected a message of protocol {VERSION}, found {shown!r}")
    return cast("dict[str, Any]", message)


def answer(request: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request that went well."""
    return {"id": request.get("id"), "result": dict(result)}


def failure(request: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    """The answer to a request that failed; an error that is not ours is told as its plugin's failure."""
    kind, message = type(error).__name__, str(error)
    if kind not in _KINDS:
        kind, message = "PluginError", f"{kind}: {message}"
    return {"id": request.get("id"), "error": {"kind": kind, "message": message}}


def result_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """What an answer holds. Raises: the error that it carries."""
    if "error" in message:
        error = message["error"]
        raise _KINDS.get(error["kind"], errors.PluginError)(error["message"])
    return cast("dict[str, Any]", message["result"])


# ------------------------------------------------------------------ arrays


def write_array(folder: Path, array: Array) -> str:
    """Keep an array in `folder` as `<sha-256>.npy`; returns that name."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array, order="C"), allow_pickle=False)
    data = buffer.getvalue()
    name = f"{hashlib.sha256(data).hexdigest()}.npy"
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{name}.{os.getpid()}"
        partial.write_bytes(data)
        os.replace(partial, folder / name)
    return name


def read_array(path: Path) -> Array:
    """An array that `write_array` kept. Raises: DeviceError when it is missing or not what its name says."""
    import numpy as np

    try:
        data = path.read_bytes()
    except OSError as error:
        raise errors.DeviceError(f"the array {path} cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != path.stem:
        raise errors.DeviceError(f"the array {path} was changed on its way (its digest does not match)")
    return cast("Array", np.load(io.BytesIO(data), allow_pickle=False))
