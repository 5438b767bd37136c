"""The exporter `kernels`: ONNX files whose heavy nodes call kernels of ours, in a library that lies beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from edgewright.protocols import Context, Exporter, Kernel, Requirement, Trial
from edgewright.types import Artifact, Model, Offer, Refusal, Target


class OnnxKernels:
    """Writes ONNX files for onnxruntime, with kernels compiled for the target's instruction set."""

    name = "kernels"
    format = "onnx"
    calls_kernels = True

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses what no kernel can be made for: the model, the target, or a tool that is not installed."""
        if model.format != "onnx":
            return Refusal(f"{model.name} is still a {model.format} model; add `lower` before the export")
        from edgewright_exporters.onnx_kernels.obstacles import obstacle

        return obstacle(target)

    def requirements(self) -> Sequence[Requirement]:
        """TVM, a C compiler and onnxruntime's C header."""
        from edgewright_exporters.onnx_kernels.requirements import requirements

        return requirements()

    def export(self, model: Model, context: Context) -> Sequence[Artifact]:
        """One artifact per stage, all with the same library as their companion.

        Numerics are those of `edgewright_exporters.onnx`, with the kernels running, where this machine can run them.

        Raises:
            RefusedError: when onnxruntime's header or a compiler is missing, or no kernel fits a node.
            PluginError: when a kernel cannot be compiled, or one of a plugin computes something else than the model.
        """
        from edgewright_exporters.onnx_kernels.exporting import export

        return export(model, context)

    def trials(self, kernel: Offer[Kernel], models: Sequence[str | bytes], folder: Path | None) -> Sequence[Trial]:
        """What a kernel does in each graph, with every tile where a `folder` for object files is given.

        Raises: RefusedError when nothing can be compiled here, PluginError naming a plugin that fails.
        """
        from edgewright_exporters.onnx_kernels.trials import trials

        return trials(kernel, models, folder)


KERNELS = OnnxKernels()


def edgewright_exporters() -> Iterable[Exporter]:
    """What this module offers."""
    return (KERNELS,)
