"""Lowers torch modules to ONNX, and checks the numbers of every stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from edgewright.protocols import Context, NoParams, OnnxTransform
from edgewright.types import Model, Refusal, Step, Target

LARGEST = 2**31
"""What a protobuf message can hold, in bytes."""


class Lower:
    """The transform `lower`: from torch to ONNX, with the shapes of the example inputs fixed."""

    name = "lower"
    summary = "turn a torch module into ONNX and check its numbers"
    Params = NoParams
    takes = "torch"
    gives = "onnx"
    needs = "nothing"
    reads = ()

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses what is ONNX already, and what no ONNX file can hold."""
        if model.format != "torch":
            return Refusal(f"{model.name} is {model.format} already; leave lower out")
        for stage in model.stages:
            module: Any = getattr(stage.graph, "module", None)
            size = sum(p.numel() * p.element_size() for p in module.parameters())
            if size >= LARGEST:
                return Refusal(f"{stage.name} has {size / 2**30:.1f} GiB of weights, but an ONNX file holds 2 GiB")
        return None

    def apply(self, model: Model, params: NoParams, context: Context) -> Model:
        """The same model in ONNX, stage by stage.

        Raises: RefusedError when an operator has no ONNX form, the module cannot be captured, or an output
        differs by more than a thousandth of its scale.
        """
        from edgewright_plugins.lower.stages import lower_stages

        variants, worst = lower_stages(model, context.keep)
        lowered = replace(model, variants=variants)
        note = f"differs from the torch module by at most {worst.max_abs:.2g} (output {worst.name!r})"
        details = {"max_abs": worst.max_abs, "max_rel": worst.max_rel, "output": worst.name}
        return lowered.after(Step(self.name, plugin="edgewright", notes=(note,), details=details))


LOWER = Lower()


def edgewright_transforms() -> Iterable[OnnxTransform]:
    """What this module offers."""
    return (LOWER,)
