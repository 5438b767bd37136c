"""Lists the modules whose exporters and renderers come with the engine; a new one is one more line."""

from __future__ import annotations

EDGEWRIGHT_API = 1

MODULES = (
    "edgewright_exporters.onnx",
    "edgewright_exporters.onnx_kernels",
    "edgewright_exporters.onnx_kernels.builtin",
    "edgewright_exporters.report_html",
    "edgewright_exporters.report_json",
    "edgewright_exporters.report_markdown",
    "edgewright_exporters.whole_model",
)
