"""Lists the modules whose runtimes come with the engine; a new one is one more line."""

from __future__ import annotations

EDGEWRIGHT_API = 1

MODULES = (
    "edgewright_runtime.null",
    "edgewright_runtime.openvino",
    "edgewright_runtime.ort",
    "edgewright_runtime.tvm",
)
