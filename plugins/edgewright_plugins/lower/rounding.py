"""Teaches torch's exporter the one operator by which modules round: it becomes a node of our own, FakeQuantize."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnx import defs
from onnxscript.values import Op, Opset
from torch import nn

from edgewright.numerics import worst
from edgewright.torchkit.fakequant import Quantizer
from edgewright.torchkit.losses import outputs_of
from edgewright.types import Array, Arrays
from edgewright_plugins.lower.integers import DOMAIN, MARK

NUDGE = 1e-5
"""Some ten times the error of a sum in float32."""
DRAWS = 4


def rounds(module: nn.Module) -> bool:
    """Whether any part of the module rounds."""
    return any(isinstance(each, Quantizer) for each in module.modules())


def wobble(module: nn.Module, inputs: Arrays, outputs: Sequence[Array]) -> float:
    """How far the outputs move, over their scale, when the edges between the codes of inner values move by `NUDGE`.

    A value that lies on such an edge falls on either side of it with the last bit of a sum, and no two runtimes sum
    alike. 0 for a module that rounds nothing.
    """
    if not rounds(module):
        return 0.0
    names = [str(position) for position in range(len(outputs))]
    generator = torch.Generator().manual_seed(0)
    return max(worst(names, outputs, _nudged(module, inputs, generator)).max_rel for _ in range(DRAWS))


def _nudged(module: nn.Module, inputs: Arrays, generator: torch.Generator) -> list[Array]:
    moved = copy.deepcopy(module)
    with torch.no_grad():
        for quantizer in (each for each in moved.modules() if isinstance(each, Quantizer) and each.batched):
            quantizer.nudge(NUDGE * float(torch.randn((), generator=generator)))
        returned = moved(*(torch.tensor(array) for array in inputs.values()))
    return [tensor.numpy() for tensor in outputs_of(returned)]


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What the exporter writes for `edgewright::fake_quantize`; `integers` turns it into ONNX's own operators."""
    mark = Op(Opset(DOMAIN, 1), MARK, _schema())

    def translated(  # noqa: PLR0917 - as the operator has them
        x: Any, scale: Any, zero_point: Any, axis: int, low: int, high: int
    ) -> Any:
        return mark(x, scale, zero_point, axis=axis, low=low, high=high)

    return {torch.ops.edgewright.fake_quantize.default: translated}


def _schema() -> defs.OpSchema:
    parameter, integer = defs.OpSchema.FormalParameter, defs.OpSchema.AttrType.INT
    return defs.OpSchema(
        MARK,
        DOMAIN,
        1,
        inputs=[
            parameter("x", "tensor(float)"),
            parameter("scale", "tensor(float)"),
            parameter("zero_point", "tensor(int32)"),
        ],
        outputs=[parameter("y", "tensor(float)")],
        attributes=[defs.OpSchema.Attribute(name, integer) for name in ("axis", "low", "high")],
    )
