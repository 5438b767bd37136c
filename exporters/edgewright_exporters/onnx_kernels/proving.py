"""Runs a kernel on values of a graph, between forbidden pages, and compares; in a process that may be lost by it."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.errors import PluginError
from edgewright.numerics import difference
from edgewright.testing.guarded import Guarded
from edgewright.types import Array
from edgewright_exporters.kernels.window import blocked, unblocked
from edgewright_exporters.onnx_kernels.templates import Kernel, kernel_of
from edgewright_exporters.tir.isa import Isa
from edgewright_exporters.tir.linking import link

CLOSE = 1e-5
"""How far floats may be from what is wanted, as a share of the largest; whole numbers are exact."""

MOST_PIECES = 64
"""In how many calls the work is done the second time, at most."""

UNWRITTEN = 0xFF
"""Every byte before a kernel writes: of floats, it is no number."""


def prove(task: Mapping[str, Any], isa: Isa) -> None:
    """Compare what the kernel with the object file `place` makes of `values` with what stands there too.

    Raises: PluginError where they differ, or memory was changed that is not the kernel's own.
    """
    kernel, images = kernel_of(task["kernel"]), frozenset(task["blocked"])
    with np.load(task["values"]) as file:
        given, weights, wanted = ({n[1:]: file[n] for n in file.files if n[0] == kind} for kind in "<=>")
    packed = kernel.pack(isa, {name: value[()] for name, value in weights.items()})
    read = {name: blocked(_image(value), isa.lanes) if name in images else value for name, value in given.items()}
    buffers = _filled(kernel.arguments(isa), read, packed, wanted)
    before = {name: buffer.array.tobytes() for name, buffer in buffers.items() if name not in wanted}
    run = _runner(kernel, Path(task["place"]).read_bytes(), buffers, isa)
    for count in dict.fromkeys((1, min(kernel.items(isa), MOST_PIECES))):
        for name in wanted:
            buffers[name].bytes[buffers[name].before :] = UNWRITTEN
        run(count)
        for name, want in wanted.items():
            _compare(name, want, buffers[name].array, isa.lanes if name in images else 0)
    if any(buffers[name].array.tobytes() != held for name, held in before.items()):
        raise PluginError("it writes to what it only may read")
    if not all(buffer.intact() for buffer in buffers.values()):
        raise PluginError("it writes before the begin of what it is given")


def _filled(
    arguments: Sequence[Any], read: Mapping[str, Array], packed: Sequence[Array], wanted: Collection[str]
) -> Mapping[str, Guarded]:
    """Memory for each pointer, with what the kernel reads there."""
    constants, buffers = iter(packed), dict[str, Guarded]()
    for argument in arguments:
        buffers[argument.name] = buffer = Guarded(argument.size, argument.dtype)
        if argument.name not in wanted:
            buffer.array[:] = (read[argument.name] if argument.name in read else next(constants)).ravel()
    return buffers


def _image(value: Array) -> Array:
    return value.reshape(*value.shape, *(1,) * (4 - value.ndim))


def _runner(kernel: Kernel, content: bytes, buffers: Mapping[str, Guarded], isa: Isa) -> Any:
    """Does all the work in a number of calls."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "proof.so"
        place.write_bytes(link([content], isa))
        called = getattr(ctypes.CDLL(str(place)), kernel.symbol(isa))
    called.restype = None
    pointers = [ctypes.c_void_p(buffer.array.ctypes.data) for buffer in buffers.values()]

    def run(count: int) -> None:
        for begin, end in _pieces(kernel.items(isa), count):
            called(*pointers, ctypes.c_int32(begin), ctypes.c_int32(end))

    return run


def _pieces(items: int, count: int) -> Iterator[tuple[int, int]]:
    """The last piece first: none may rest on what another did."""
    edges = [items * at // count for at in range(count + 1)]
    yield from reversed(list(zip(edges, edges[1:])))


def _compare(name: str, want: Array, got: Array, lanes: int) -> None:
    """`lanes` are those of an image in blocks, and zero of anything else."""
    if lanes:
        batch, channels, *sizes = _image(want).shape
        got = unblocked(got.reshape(batch, -1, *sizes, lanes), channels)
    off = difference(name, want.ravel(), got.ravel())
    if off.max_rel > (0 if want.dtype.kind in "iu" else CLOSE):
        raise PluginError(f"{name!r} is off by {off.max_abs:.3g}, which is {off.max_rel:.2g} of its largest value")
