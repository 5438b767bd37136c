"""Ways to read a model: an ONNX file, a callable in a Python file, an exported torch program, a bundle."""

from __future__ import annotations

from collections.abc import Iterable

from edgewright.protocols import Loader
from edgewright_plugins.loaders.bundle_folder import BUNDLE_FOLDER
from edgewright_plugins.loaders.onnx_file import ONNX_FILE
from edgewright_plugins.loaders.pt2 import PT2
from edgewright_plugins.loaders.torch_file import TORCH_FILE


def edgewright_loaders() -> Iterable[Loader]:
    """What this module offers."""
    return (ONNX_FILE, TORCH_FILE, PT2, BUNDLE_FOLDER)
