"""What a torch module is run on to learn its signature: the task's examples, the user's, or seeded noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch

from edgewright.asking.userfile import Reference, call_in
from edgewright.errors import ModelError, suggest
from edgewright.protocols import LoadRequest
from edgewright.types import Array

Examples = dict[str, Array]


def given_examples(user: ModuleType, reference: Reference, names: Sequence[str]) -> Examples:
    """What the file's `example_inputs` gives, by argument name; empty when it has none.

    Raises: ModelError when that is not a tensor, a tuple or a dict of them.
    """
    if not hasattr(user, "example_inputs"):
        return {}
    there = Reference(reference.path, "example_inputs")
    value = call_in(user, there, kind="example inputs", error=ModelError)
    return named_arrays(value, names, where=str(there))


def named_arrays(value: Any, names: Sequence[str], *, where: str) -> Examples:
    """Tensors by argument name: a dict as it is, a tuple or a single tensor in the order of `names`."""
    if isinstance(value, Mapping):
        return {str(name): _array(item, where) for name, item in value.items()}
    items = list(value) if isinstance(value, (tuple, list)) else [value]
    if names and len(items) > len(names):
        raise ModelError(f"{where} gives {len(items)} tensors, but forward takes {len(names)}: {', '.join(names)}")
    return {_nth(names, i): _array(item, where) for i, item in enumerate(items)}


def choose_examples(source: str, names: Sequence[str], given: Examples, request: LoadRequest) -> Examples:
    """One batch per input, by argument name.

    The task's first examples, else those `given` by the user; `request.shapes` replaces single inputs by
    seeded noise and `request.batch` above 1 repeats or cuts rows.

    Raises: ModelError when nothing gives an input, or a name is no argument of the module.
    """
    base = _from_task(names, request) or given
    for name in (*base, *request.shapes):
        # a module with a free-form signature (`*args`) has no names to check against
        if names and name not in names:
            raise ModelError(f"{source}: forward has no argument {name!r}; {suggest(name, names)}")
    if not base and not request.shapes:
        raise ModelError(
            f"{source} has no example inputs: add a function example_inputs() to the file that returns a tensor, "
            "a tuple or a dict of them, or give --task, or --shape NAME:1x3x224x224"
        )
    rng = np.random.default_rng(request.seed)
    chosen = {name: _with_rows(array, request.batch) for name, array in base.items()}
    chosen |= {name: _noise(shape, base.get(name), rng) for name, shape in request.shapes.items()}
    return {name: chosen[name] for name in sorted(chosen, key=[*names, *chosen].index)}


def _from_task(names: Sequence[str], request: LoadRequest) -> Examples:
    task = request.task
    split = task and next((part for part in ("calibration", "training", "selection") if task.size(part)), None)
    if task is None or split is None:
        return {}
    batch = next(iter(task.batches(split, request.batch, limit=request.batch)))
    inputs = dict(batch.inputs)
    if len(inputs) == 1 and names and next(iter(inputs)) not in names:
        return {names[0]: next(iter(inputs.values()))}
    return inputs


def _nth(names: Sequence[str], i: int) -> str:
    if i < len(names):
        return names[i]
    return f"input_{i}" if i else "input"


def _array(value: Any, where: str) -> Array:
    tensor = torch.as_tensor(value) if isinstance(value, (torch.Tensor, np.ndarray)) else None
    if tensor is None or tensor.dtype in (torch.bfloat16, torch.complex64, torch.complex128):
        found = type(value).__name__ if tensor is None else str(tensor.dtype)
        raise ModelError(f"{where} gives {found}; an example input is a tensor of float, integer or bool")
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def _noise(shape: Sequence[int], like: Array | None, rng: np.random.Generator) -> Array:
    """Normal floats; of other types values that `like` holds, so that they stay in range."""
    if like is None or like.dtype.kind == "f":
        return rng.standard_normal(tuple(shape)).astype(np.float32 if like is None else like.dtype)
    return rng.choice(like.reshape(-1), size=tuple(shape))


def _with_rows(array: Array, batch: int) -> Array:
    if batch == 1 or array.ndim == 0:
        return array
    return np.resize(array, (batch, *array.shape[1:]))
