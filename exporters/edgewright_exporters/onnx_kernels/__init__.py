"""The exporter `kernels`: ONNX files whose heavy nodes call kernels of ours, in a library that lies beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgewright.protocols import Context, Exporter, Requirement
from edgewright.types import Artifact, Model, Refusal, Target


class OnnxKernels:
    """Writes ONNX files for onnxruntime, with kernels compiled for the target's instruction set."""

    name = "kernels"
    format = "onnx"

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses what no kernel can be made for: the model, the target, or a tool that is not installed."""
        if model.format != "onnx":
            return Refusal(f"{model.name} is still a {model.format} model; add `lower` before the export")
        from edgewright_exporters.onnx_kernels.obstacles import obstacle

        return obstacle(model, target)

    def requirements(self) -> Sequence[Requirement]:
        """TVM, a C compiler and onnxruntime's C header."""
        from edgewright_exporters.onnx_kernels.requirements import requirements

        return requirements()

    def export(self, model: Model, context: Context) -> Sequence[Artifact]:
        """One artifact per stage, all with the same library as their companion.

        Numerics are those of `edgewright_exporters.onnx`, with the kernels running, where this machine can run them.

        Raises:
            RefusedError: when onnxruntime's header or a compiler is missing.
            PluginError: when a kernel cannot be compiled.
        """
        from edgewright_exporters.onnx_kernels.exporting import export

        return export(model, context)


KERNELS = OnnxKernels()


def edgewright_exporters() -> Iterable[Exporter]:
    """What this module offers."""
    return (KERNELS,)
