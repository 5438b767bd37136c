"""Leaves out nodes that give numbers another shape: to a kernel, which reads and writes them in a row, they are one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from edgewright_exporters.onnx_kernels.match import Match
from edgewright_exporters.onnx_kernels.wiring import Wiring, is_standard

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")


def without_reshapes(wiring: Wiring, matches: Sequence[Match]) -> Sequence[Match]:
    """The same kernels, reading what is before such nodes and writing what is behind them.

    Images in blocks keep their shapes: theirs is another order of numbers.
    """
    made = {value for each in matches for value in each.outputs.values()}

    def before(each: Match, pointer: str, name: str) -> str:
        return name if pointer in each.blocked else _source(wiring, name, made)

    taken = [replace(each, inputs={n: before(each, n, v) for n, v in each.inputs.items()}) for each in matches]
    needed = {value for each in taken for pointer, value in each.inputs.items() if pointer not in each.blocked}

    def behind(each: Match, pointer: str, name: str) -> str:
        return name if pointer in each.blocked or name in needed else reshaped(wiring, name)

    return [replace(each, outputs={n: behind(each, n, v) for n, v in each.outputs.items()}) for each in taken]


def reshaped(wiring: Wiring, name: str) -> str:
    """The last value that is `name` in another shape, and that nothing else is made of."""
    reader = wiring.only_reader(name)
    while reader is not None and is_standard(reader, *RESHAPES) and wiring.shape(reader.output[0]):
        name = reader.output[0]
        reader = wiring.only_reader(name)
    return name


def _source(wiring: Wiring, name: str, made: Collection[str]) -> str:
    """The first value that `name` is in another shape, no further back than what kernels make."""
    maker = wiring.maker(name)
    while name not in made and maker is not None and is_standard(maker, *RESHAPES) and wiring.shape(maker.input[0]):
        name = maker.input[0]
        maker = wiring.maker(name)
    return name
