"""What the deployed graph's layers lack, measured on calibration examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgewright import onnxkit
from edgewright.grids import Encoding
from edgewright.types import Array, Arrays
from edgewright_plugins.eora.lowrank import Moments
from edgewright_plugins.qdq.layers import Layer, constant


@dataclass(frozen=True, eq=False)
class Linear:
    """A layer in numbers, float64: its weight [out, in], its bias [out] (zeros where it has none).

    `delta` is the weight less its rounded value.
    """

    layer: Layer
    weight: Array
    bias: Array
    delta: Array


def linear_of(proto: onnx.ModelProto, layer: Layer, encoding: Encoding) -> Linear:
    """The numbers of a layer of the float graph, and what rounding takes from them."""
    values = constant(proto, layer.weight)
    weight, held = (_outputs_first(layer, each).astype(np.float64) for each in (values, encoding.rounded(values)))
    bias = constant(proto, layer.bias).astype(np.float64).reshape(-1) if layer.bias else np.zeros(len(weight))
    return Linear(layer, weight, bias, weight - held)


def _outputs_first(layer: Layer, values: Array) -> Array:
    return values if layer.axis == 0 else values.T


def moments_of(deployed: onnx.ModelProto, linears: Sequence[Linear], feeds: Sequence[Arrays]) -> list[Moments]:
    """The moments of layers of one wave, from what goes in and out of them in the deployed graph.

    A row of `lack` is the float layer's answer to the deployed graph's input, less the deployed layer's answer.
    Memory: the activations of one batch.
    """
    names = [name for each in linears for name in (each.layer.input, each.layer.output)]
    sums = [_nothing(each) for each in linears]
    for values in _values(deployed, names, feeds):
        sums = [
            _with(total, each, values[each.layer.input], values[each.layer.output])
            for total, each in zip(sums, linears, strict=True)
        ]
    return sums


def _nothing(linear: Linear) -> Moments:
    out, into = linear.weight.shape
    return Moments(np.zeros((into, into)), np.zeros((out, into)), 0.0, 0.0)


def _with(total: Moments, linear: Linear, given: Array, got: Array) -> Moments:
    out, into = linear.weight.shape
    x = given.reshape(-1, into).astype(np.float64)
    wanted = x @ linear.weight.T
    lack = wanted + linear.bias - got.reshape(-1, out)
    return Moments(
        total.inputs + x.T @ x,
        total.lack + lack.T @ x,
        total.energy + float(np.sum(lack**2)),
        total.wanted + float(np.sum(wanted**2)),
    )


def _values(graph: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Arrays]) -> Iterator[Arrays]:
    """The named tensors, feed by feed; only what they depend on is computed."""
    asked = onnx.ModelProto()
    asked.CopyFrom(graph)
    del asked.graph.output[:]
    given = [value.name for value in graph.graph.input]
    inner = [name for name in dict.fromkeys(names) if name not in given]
    asked.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    for feed, found in zip(feeds, onnxkit.run(onnxkit.pack(asked), feeds), strict=True):
        yield {**{name: feed[name] for name in given}, **dict(zip(inner, found, strict=True))}
