"""Makes the library that a rewritten graph calls: its kernels and the loader, in one shared object."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgewright.errors import PluginError
from edgewright_exporters.loader.build import LIBRARIES, loader_object
from edgewright_exporters.onnx_kernels.choose import made, object_place
from edgewright_exporters.onnx_kernels.templates import Kernel
from edgewright_exporters.tir.isa import Isa
from edgewright_exporters.tir.linking import link


def library_of(kernels: Mapping[str, Kernel], isa: Isa, cache: Path, *, headers: Path) -> bytes:
    """The shared object with all of `kernels`, by symbol.

    Args:
        kernels: what `Kernelised.kernels` holds.
        isa: what to compile for.
        cache: where object files are kept.
        headers: where a fetched header of onnxruntime lies, and the compiled loader.

    Raises:
        RefusedError: when a compiler or a header is missing.
        PluginError: when a kernel cannot be compiled.
    """
    loader = loader_object(isa, headers)
    for kernel, reason in made(list(kernels.values()), isa, cache).items():
        raise PluginError(f"the kernel {kernel.symbol(isa)} cannot be compiled for {isa.name}: {reason}")
    objects = [object_place(kernel, isa, cache).read_bytes() for _, kernel in sorted(kernels.items())]
    return link([*objects, loader], isa, libraries=LIBRARIES)
