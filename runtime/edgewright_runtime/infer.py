"""Runs a set of examples through a loaded bundle, block by block, and stacks what comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from edgewright.errors import InputError
from edgewright.types import Arrays

if TYPE_CHECKING:
    from edgewright_runtime.loaded import Loaded


def infer(loaded: Loaded, arrays: Arrays, *, batch: int = 1) -> dict[str, Any]:
    """The outputs of every example, stacked on axis 0; recurrent states are left out.

    Args:
        loaded: The bundle; its recurrent state is reset before each block.
        arrays: Inputs by name, axis 0 being the example.
        batch: Examples per run where the graph leaves it open; a fixed batch of the graph is kept, and
            the last block is filled up with copies of its last example, whose outputs are dropped.

    Raises: InputError when arrays differ in length, or an output has no row per example.
    """
    rows = _rows(arrays)
    fixed = _fixed_batch(loaded)
    size = fixed or batch
    parts: dict[str, list[Any]] = {name: [] for name in _answers(loaded)}
    for start in range(0, rows, size):
        kept = min(size, rows - start)
        loaded.reset()
        fed = fixed or kept
        block = {name: _filled(array[start : start + kept], fed) for name, array in arrays.items()}
        outputs = loaded.run(block).outputs
        for name, part in parts.items():
            part.append(_per_example(name, outputs[name], fed)[:kept])
    return {name: _joined(name, part) for name, part in parts.items()}


def _rows(arrays: Arrays) -> int:
    lengths = {name: len(array) if np.ndim(array) else 0 for name, array in arrays.items()}
    if not lengths or 0 in lengths.values() or len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items()) or "none"
        raise InputError(f"give every input as many examples (one at least) on axis 0; given: {listed}")
    return next(iter(lengths.values()))


def _fixed_batch(loaded: Loaded) -> Optional[int]:
    fed = loaded.bundle.signature.fed
    first = fed[0].shape[0] if fed and fed[0].shape else 1
    return first if isinstance(first, int) else None


def _answers(loaded: Loaded) -> list[str]:
    signature = loaded.bundle.signature
    states = {link.output for link in signature.state}
    names = [spec.name for spec in signature.outputs]
    return [name for name in names if name not in states] or names


def _filled(block: Any, size: int) -> Any:
    missing = size - len(block)
    return np.concatenate([block, np.repeat(block[-1:], missing, axis=0)]) if missing > 0 else block


def _per_example(name: str, output: Any, rows: int) -> Any:
    if output.ndim and output.shape[0] == rows:
        return output
    if rows == 1:
        return output[None]
    raise InputError(f"the output {name} has shape {list(output.shape)} for {rows} examples; use a batch of 1")


def _joined(name: str, parts: list[Any]) -> Any:
    try:
        return np.concatenate(parts)
    except ValueError as error:
        raise InputError(f"the output {name} changes its shape from example to example: {error}") from error
