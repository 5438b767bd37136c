"""Rewrites that the optimizer does not bring."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import pattern


def bias_rules() -> pattern.RewriteRuleSet:
    """`Add(Conv(x, w), constant per channel)` becomes a convolution with a bias.

    Runtimes fuse the two in float32, but not once each stands between quantisers.
    """
    return pattern.RewriteRuleSet([pattern.RewriteRule(_convolution_then_add, _with_bias, _is_bias)], commute=True)


def _convolution_then_add(op: Any, x: ir.Value, weight: ir.Value, bias: ir.Value) -> Any:
    return op.Add(op.Conv(x, weight, _outputs=["convolved"]), bias)


def _is_bias(context: Any, weight: ir.Value, bias: ir.Value, **_: ir.Value) -> bool:
    """One constant per output channel: shape [channels, 1, ...], with or without a leading 1 for the batch."""
    if bias.const_value is None or bias.is_graph_input() or weight.shape is None:
        return False
    channels, spatial = weight.shape[0], (1,) * (len(weight.shape) - 2)
    return tuple(bias.const_value.shape) in ((channels, *spatial), (1, channels, *spatial))


def _with_bias(op: Any, x: ir.Value, weight: ir.Value, bias: ir.Value, convolved: ir.Value) -> Any:
    producer = convolved.producer()
    if producer is None or bias.const_value is None:
        raise ValueError("the pattern matched no Conv with a constant")
    flat = ir.tensor(bias.const_value.numpy().reshape(-1))
    # several layers may share the constant, so its new form is named by the layer
    return op.Conv(x, weight, op.initializer(flat, name=f"{convolved.name}_bias"), **producer.attributes)
