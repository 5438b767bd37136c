"""Runs rewritten graphs with their library on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edgewright.onnxkit import ask_for_exact_products
from edgewright.types import Array, Arrays


def run_files(files: Sequence[Path], library: Path, feeds: Iterable[Arrays]) -> list[dict[str, Array]]:
    """All that a chain of files makes of each feed, each file reading what those before it made."""
    pools: list[dict[str, Array]] = [dict(feed) for feed in feeds]
    for file in files:
        opened = session(file, library)
        taken = [value.name for value in opened.get_inputs()]
        names = [value.name for value in opened.get_outputs()]
        for pool in pools:
            made = opened.run(names, {name: pool[name] for name in taken})
            pool.update(zip(names, map(np.asarray, made)))
    return pools


def session(file: Path, library: Path) -> ort.InferenceSession:
    """A rewritten graph, loaded for one thread with onnxruntime's warnings off."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    ask_for_exact_products(options)
    options.add_session_config_entry("edgewright.threads", "1")
    options.register_custom_ops_library(str(library))
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
