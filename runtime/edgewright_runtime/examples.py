"""The inputs that a bundle carries to be tried with: one example, or a stream of which each run takes the next."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.bundle import Bundle
from edgewright.errors import InputError
from edgewright.types import Arrays


def read_example(bundle: Bundle) -> dict[str, Any]:
    """The bundle's example, by name: what one run takes, so the first step of it where it holds many.

    Raises: InputError.
    """
    return next(bundle.signature.steps(_read(bundle.example_inputs)))


def open_stream(bundle: Bundle) -> Iterator[Arrays]:
    """Inputs without an end: the bundle's stream, as many rows at a time as its example has, else its example.

    Raises: InputError.
    """
    example = read_example(bundle)
    if bundle.example_stream is None:
        return repeat(example)
    return cycle(_read(bundle.example_stream), rows_of(example))


def rows_of(arrays: Arrays) -> int:
    """How many rows one run takes, by its first input that has an axis."""
    return next((len(array) for array in arrays.values() if array.ndim), 1)


def cycle(arrays: Arrays, rows: int) -> Iterator[Arrays]:
    """The next `rows` of axis 0 each time, from the start again when all were seen. Raises: InputError."""
    lengths = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise InputError(f"a stream has as many rows, one at least, of every input; found {sorted(lengths)}")
    return _cycle(arrays, rows, lengths.pop())


def _cycle(arrays: Arrays, rows: int, total: int) -> Iterator[Arrays]:
    start = 0
    while True:
        where = np.arange(start, start + rows) % total
        yield {name: array[where] for name, array in arrays.items()}
        start = (start + rows) % total


def _read(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise InputError(f"the bundle's example input {path} cannot be read: {error}") from error
