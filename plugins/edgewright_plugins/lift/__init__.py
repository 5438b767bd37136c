"""Lifts ONNX graphs into torch modules that methods can edit and train."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from typing import Any

from edgewright.protocols import Context, NoParams, OnnxTransform
from edgewright.types import Model, Refusal, Step, Target, TorchGraph


class Lift:
    """The transform `lift`: from ONNX to a torch.fx.GraphModule whose weights stand in layers of torch.nn."""

    name = "lift"
    summary = "turn an ONNX graph into a torch module that methods can edit and train"
    Params = NoParams
    takes = "onnx"
    gives = "torch"
    needs = "nothing"
    reads = ()

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses torch modules, models of several stages, and hosts without torch."""
        if model.format != "onnx":
            return Refusal(f"{model.name} is {model.format} already; leave lift out")
        if len(model.stages) != 1:
            return Refusal(
                f"{model.name} has {len(model.stages)} stages, and lift works on models of one; train before "
                "the method that splits the model: --apply lsq --apply early-exit"
            )
        if importlib.util.find_spec("torch") is None:
            return Refusal("lift needs PyTorch, which is not installed: pip install 'edgewright[torch]'")
        return None

    def apply(self, model: Model, params: NoParams, context: Context) -> Model:
        """The same model as a torch module, its numbers checked on the example inputs.

        Raises: RefusedError when an operator has no torch form, or a node differs.
        """
        from edgewright import onnxkit
        from edgewright_plugins.lift.check import lift_checked

        graph: Any = model.graph
        module, found, problem = lift_checked(onnxkit.read(graph), model.example)
        lifted = model.with_graph(TorchGraph(module, hashlib.sha256(f"lift {graph.digest}".encode()).hexdigest()))
        batch = f"the batch stays as it is: {problem}" if problem else "any batch size runs"
        notes = (f"differs from the ONNX graph by at most {found.max_abs:.2g} (output {found.name!r}); {batch}",)
        details = {"max_abs": found.max_abs, "max_rel": found.max_rel, "output": found.name, "free_batch": not problem}
        return lifted.after(Step(self.name, plugin="edgewright", notes=notes, details=details))


LIFT = Lift()


def edgewright_transforms() -> Iterable[OnnxTransform]:
    """What this module offers."""
    return (LIFT,)
