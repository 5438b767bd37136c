"""Teaches torch's exporter the operator of a convolution with channels left out: what is left out is not computed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnxscript import opset20
from torch import nn

from edgewright.torchkit.gated import Settling

op: Any = opset20


def settled(module: nn.Module) -> nn.Module:
    """The module without what only training needs; itself where it has nothing like that."""
    if not any(isinstance(each, Settling) for each in module.modules()):
        return module
    module = copy.deepcopy(module)
    for each in module.modules():
        if isinstance(each, Settling):
            each.settle()
    return module


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What the exporter writes for `edgewright::gated_conv`."""
    return {torch.ops.edgewright.gated_conv.default: _translated}


def _translated(  # noqa: PLR0917 - as the operator has them
    x: Any, weight: Any, bias: Any, logits: Any, means: Any, block: int, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> Any:  # fmt: skip
    moving = {"strides": [*stride], "pads": [*padding, *padding], "dilations": [*dilation]}
    least = op.Min(op.ReduceMax(logits, _ints(1)), _constant(np.zeros(1, np.float32)))
    fires = op.Cast(op.GreaterOrEqual(logits, least), to=onnx.TensorProto.FLOAT)
    gate = op.Gather(fires, _constant(np.arange(weight.shape[0]) // block), axis=1)
    if x.shape[0] == 1:
        return _gathered(x, weight, bias, gate, means, moving)
    return op.Mul(op.Conv(x, weight, bias, **moving), op.Unsqueeze(gate, _ints(2, 3)))


def _gathered(  # noqa: PLR0917 - as above
    x: Any, weight: Any, bias: Any, gate: Any, means: Any, moving: dict[str, Any]
) -> Any:
    """A convolution of the channels of x that hold something and the filters that are wanted, put where they belong."""
    wanted = _places(gate)
    kept = op.Gather(weight, wanted, axis=0)
    if means is not None:
        # No runtime convolves nothing at all: the first channel always goes along, and adds zeros.
        full = _places(op.Max(means, _constant(np.eye(1, weight.shape[1], dtype=np.float32))))
        kept, x = op.Gather(kept, full, axis=1), op.Gather(x, full, axis=1)
    y = op.Conv(x, kept, op.Gather(bias, wanted, axis=0), **moving)
    image = op.Slice(op.Shape(y), _ints(2), _ints(4))
    empty = op.Expand(_constant(np.zeros(1, np.float32)), op.Concat(_ints(weight.shape[0]), image, axis=0))
    return op.Unsqueeze(op.ScatterND(empty, op.Unsqueeze(wanted, _ints(1)), op.Squeeze(y, _ints(0))), _ints(0))


def _places(marks: Any) -> Any:
    """Where a row [1, n] is not zero."""
    return op.Squeeze(op.NonZero(op.Squeeze(marks, _ints(0))), _ints(0))


def _ints(*values: int) -> Any:
    return op.Constant(value_ints=list(values))


def _constant(value: Any) -> Any:
    return op.Constant(value=onnx.numpy_helper.from_array(value))
