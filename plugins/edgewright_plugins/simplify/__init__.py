"""The method `simplify`: the same function with fewer nodes, at an opset that other methods can work on."""

from __future__ import annotations

from collections.abc import Iterable

from edgewright.protocols import Context, NoParams, OnnxTransform
from edgewright.types import Model, Refusal, Step, Target


class Simplify:
    """Folds constants and batch norms, drops what does nothing or is done twice, raises old opsets to 17."""

    name = "simplify"
    summary = "folds constants and batch norms, drops dead and repeated nodes, raises the opset to 17"
    Params = NoParams
    takes = "onnx"
    gives = "onnx"
    needs = "nothing"
    reads: tuple[str, ...] = ()

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Every ONNX graph can be simplified."""
        return None

    def apply(self, model: Model, params: NoParams, context: Context) -> Model:
        """The simpler graph; the step's details count nodes before and after."""
        from edgewright import onnxkit
        from edgewright_plugins.simplify.graph import simplify

        before = onnxkit.read(model.graph)
        after, remarks = simplify(before)
        counts = {"before": len(before.graph.node), "after": len(after.graph.node)}
        notes = (f"{counts['before']} nodes before, {counts['after']} after", *remarks)
        step = Step(self.name, plugin="edgewright", notes=notes, details={"nodes": counts})
        return model.with_graph(context.keep(onnxkit.pack(after))).after(step)


SIMPLIFY = Simplify()


def edgewright_transforms() -> Iterable[OnnxTransform]:
    """What this module offers."""
    return (SIMPLIFY,)
