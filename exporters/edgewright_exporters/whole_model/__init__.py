"""The exporter `tvm`: a whole model as one shared object, for devices that have TVM's runtime and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgewright.protocols import Context, Exporter
from edgewright.types import Artifact, Model, Refusal, Target


class WholeModel:
    """Compiles each stage with TVM: kernels of ours where a template fits, TVM's own plain loops for all else."""

    name = "tvm"
    format = "tvm"
    tunes = True
    calls_kernels = True

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses operators that TVM cannot do, by name, and what stands in the way of compiling anything."""
        if model.format != "onnx":
            return Refusal(f"{model.name} is still a {model.format} model; add `lower` before the export")
        from edgewright_exporters.whole_model.obstacles import obstacle

        return obstacle(model, target)

    def export(self, model: Model, context: Context) -> Sequence[Artifact]:
        """One artifact per stage.

        Numerics are those of `edgewright_exporters.onnx`, from running what was compiled, where this machine can.

        Raises:
            RefusedError: when TVM cannot import or compile a stage; the message names the operator.
            PluginError: when a kernel cannot be compiled.
        """
        from edgewright_exporters.whole_model.exporting import export

        return export(model, context)


TVM = WholeModel()


def edgewright_exporters() -> Iterable[Exporter]:
    """What this module offers."""
    return (TVM,)
