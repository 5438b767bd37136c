"""Runs a set of examples through a loaded bundle, block by block, and stacks what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from edgewright.errors import InputError
from edgewright.types import Array, Arrays, Signature

if TYPE_CHECKING:
    from edgewright_runtime.loaded import Loaded


@dataclass(frozen=True, eq=False)
class Answers:
    """What examples were answered, stacked: outputs by name, exits int64 [examples], milliseconds of each block."""

    outputs: Arrays
    exits: Array
    spent_ms: tuple[float, ...]


def infer(
    loaded: Loaded,
    arrays: Arrays,
    *,
    batch: int = 1,
    deadline_ms: Optional[float] = None,
    through: Optional[int] = None,
) -> Answers:
    """The answer to every example, stacked on axis 0; recurrent states are left out.

    Args:
        loaded: The bundle; its recurrent state is reset before each block.
        arrays: Inputs by name, axis 0 being the example; of a recurrent bundle axis 1 may hold many steps.
        batch: Examples per run where the graph leaves it open; a fixed batch of the graph is kept, and
            the last block is filled up with copies of its last example, whose outputs are dropped.
        deadline_ms: Of each run.
        through: Nothing beyond this stage runs.

    Raises: InputError when arrays differ in length, or an output has no row per example.
    """
    parts: list[dict[str, Any]] = []
    exits: list[int] = []
    spent: list[float] = []
    signature = loaded.bundle.signature
    for block in _blocks(loaded, arrays, batch):
        loaded.reset()
        answers: list[dict[str, Any]] = []  # without the states, which may be large and are many
        left, took = [], 0.0
        for feeds in signature.steps(block.feeds):
            result = loaded.run(feeds, deadline_ms=deadline_ms, through=through)
            answers.append({name: result.outputs[name] for name in _answers(loaded)})
            left, took = result.exits, took + result.spent_ms
        parts.append(block.kept(_in_time(signature, answers)))
        exits += left[: block.examples]
        spent.append(took)
    return Answers(_stacked(parts), np.array(exits, np.int64), tuple(spent))


def explore(loaded: Loaded, arrays: Arrays, *, batch: int = 1) -> list[dict[str, Any]]:
    """What every stage answers to every example when none leaves: outputs and score by name, stacked on axis 0.

    Raises: InputError as `infer` does.
    """
    parts: list[list[dict[str, Any]]] = []
    for block in _blocks(loaded, arrays, batch):
        loaded.reset()
        parts.append([block.kept(found) for found in loaded.explore(block.feeds)])
    return [_stacked(stage) for stage in zip(*parts)]


@dataclass(frozen=True, eq=False)
class Block:
    """What one run is fed, how many rows that is, and how many of them are examples and no filling."""

    feeds: Arrays
    rows: int
    examples: int

    def kept(self, outputs: Arrays) -> dict[str, Any]:
        """The outputs' rows of the examples. Raises: InputError."""
        return {name: _per_example(name, output, self.rows)[: self.examples] for name, output in outputs.items()}


def _blocks(loaded: Loaded, arrays: Arrays, batch: int) -> Iterator[Block]:
    total = _rows(arrays)
    fixed = _fixed_batch(loaded)
    size = fixed or batch
    for start in range(0, total, size):
        examples = min(size, total - start)
        rows = fixed or examples
        feeds = {name: _filled(array[start : start + examples], rows) for name, array in arrays.items()}
        yield Block(feeds, rows, examples)


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


def _in_time(signature: Signature, found: Sequence[Arrays]) -> Arrays:
    """The outputs of the steps of one example: joined on axis 1 where a run gives one of size 1, else the last."""
    if len(found) == 1:
        return found[0]
    along = [spec.name for spec in signature.outputs if spec.shape[1:2] == (1,)]
    return {
        name: np.concatenate([each[name] for each in found], 1) if name in along else last
        for name, last in found[-1].items()
    }


def _filled(block: Any, size: int) -> Any:
    missing = size - len(block)
    return np.concatenate([block, np.repeat(block[-1:], missing, axis=0)]) if missing > 0 else block


def _per_example(name: str, output: Any, rows: int) -> Any:
    if output.ndim and output.shape[0] == rows:
        return output
    if rows == 1:
        return output[None]
    raise InputError(f"the output {name} has shape {list(output.shape)} for {rows} examples; use a batch of 1")


def _stacked(parts: Sequence[Arrays]) -> dict[str, Any]:
    return {name: _joined(name, [part[name] for part in parts]) for name in parts[0]}


def _joined(name: str, parts: list[Any]) -> Any:
    try:
        return np.concatenate(parts)
    except ValueError as error:
        raise InputError(f"the output {name} changes its shape from example to example: {error}") from error
