"""The method `simplify`: the same function with fewer nodes, at an opset that other methods can work on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

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
        """Each stage simplified on its own; the step's details count nodes before and after."""
        from edgewright import onnxkit
        from edgewright_plugins.simplify.graph import simplify

        notes: list[str] = []
        counts = {"before": 0, "after": 0}
        variants = []
        for variant in model.variants:
            stages = []
            for stage in variant.stages:
                before = onnxkit.read(stage.graph)
                after, remarks = simplify(before)
                notes += [f"{stage.name}: {remark}" if len(model.stages) > 1 else remark for remark in remarks]
                counts["before"] += len(before.graph.node)
                counts["after"] += len(after.graph.node)
                stages.append(replace(stage, graph=context.keep(onnxkit.pack(after))))
            variants.append(replace(variant, stages=tuple(stages)))
        notes.insert(0, f"{counts['before']} nodes before, {counts['after']} after")
        step = Step(self.name, plugin="edgewright", notes=tuple(notes), details={"nodes": counts})
        return replace(model, variants=tuple(variants)).after(step)


SIMPLIFY = Simplify()


def edgewright_transforms() -> Iterable[OnnxTransform]:
    """What this module offers."""
    return (SIMPLIFY,)
