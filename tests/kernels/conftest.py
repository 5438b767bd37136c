"""Compiles templates and runs them on buffers whose surroundings must stay untouched."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy.typing as npt
import pytest

from edgewright.errors import RefusedError
from edgewright.testing.guarded import Guarded
from edgewright_exporters.tir.compiler import compile_object
from edgewright_exporters.tir.isa import Isa, isas_of
from edgewright_exporters.tir.linking import find_compiler, link
from edgewright_runtime.device import find_device

Array = npt.NDArray[Any]


@pytest.fixture(scope="session")
def here() -> Sequence[Isa]:
    """The instruction sets that this machine can run, best first."""
    return isas_of(find_device())


@pytest.fixture(scope="session")
def linker(here: Sequence[Isa]) -> str:
    """A C compiler to link with, or a skip."""
    try:
        return find_compiler(here[0])
    except RefusedError as refusal:
        pytest.skip(str(refusal))


@pytest.fixture(scope="session")
def tvm(linker: str) -> ModuleType:
    """TVM, or a skip: a test that compiles asks for it, and links what comes out."""
    return pytest.importorskip("tvm", reason="the tvm extra is not installed")


@dataclass(frozen=True)
class Built:
    """A compiled kernel: its function, its arguments in order, and its number of items."""

    function: Any
    arguments: Sequence[Any]
    items: int

    def __call__(self, values: Mapping[str, Array], cuts: Sequence[int] = ()) -> Array:
        """The last output for inputs by name, computed in pieces of the items that `cuts` part."""
        return self.outputs(values, cuts)[self.arguments[-1].name]

    def outputs(self, values: Mapping[str, Array], cuts: Sequence[int] = ()) -> dict[str, Array]:
        """Every argument that `values` does not name."""
        buffers = {argument.name: Guarded(argument.size, argument.dtype) for argument in self.arguments}
        inputs = {name: buffer for name, buffer in buffers.items() if name in values}
        for name, buffer in inputs.items():
            buffer.array[:] = values[name].ravel()
        pointers = [ctypes.c_void_p(buffer.array.ctypes.data) for buffer in buffers.values()]
        edges = [0, *cuts, self.items]
        for begin, end in zip(edges, edges[1:]):
            self.function(*pointers, ctypes.c_int32(begin), ctypes.c_int32(end))
        assert all(buffer.intact() for buffer in buffers.values())
        for name, buffer in inputs.items():
            assert buffer.array.tobytes() == values[name].astype(buffer.array.dtype).tobytes(), f"{name} was written to"
        return {name: buffer.array.copy() for name, buffer in buffers.items() if name not in inputs}


Build = Callable[[ModuleType, Any, Any, Isa], Built]


@pytest.fixture(scope="session")
def build(tvm: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compiles a template's kernel for one case and tile, and loads it."""
    folder: Path = tmp_path_factory.mktemp("kernels")
    made: dict[tuple[Any, ...], Built] = {}

    def compiled(template: ModuleType, case: Any, tile: Any, isa: Isa) -> Built:
        key = (template.__name__, case, tile, isa)
        if key not in made:
            content = link([compile_object({"kernel": template.function(case, tile, isa, "kernel")}, isa)], isa)
            path = folder / f"{len(made)}.so"
            path.write_bytes(content)
            function = ctypes.CDLL(str(path)).kernel
            function.restype = None
            made[key] = Built(function, template.arguments(case, tile, isa), template.items(case, tile, isa))
        return made[key]

    return compiled
