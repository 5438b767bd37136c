"""Finds what follows a product that its kernel can do as well."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgewright_exporters.onnx_kernels.gelus import gelu_after
from edgewright_exporters.onnx_kernels.reshapes import reshaped
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, is_standard, other_input


@dataclass(frozen=True)
class Epilogue:
    """An activation and a value of the same shape that is added; `y` is what comes out."""

    y: str
    activation: str = "none"
    residual: str | None = None


def epilogue_after(wiring: Wiring, name: str) -> Epilogue:
    """What follows `name`, also behind new shapes for the same numbers: an activation, then a sum.

    Each step is taken only where nothing else reads what it would hide.
    """
    activation, y = _activation(wiring, reshaped(wiring, name)) or ("none", name)
    residual, y = _sum(wiring, reshaped(wiring, y)) or (None, y)
    return Epilogue(y, activation, residual)


def image_epilogue_after(wiring: Wiring, name: str, *, residual: bool) -> Epilogue:
    """What follows the image `name`: a sum where the kernel has a `residual`, then an activation."""
    added, y = (_sum(wiring, name) if residual else None) or (None, name)
    activation, y = _activation(wiring, y) or _clipped(wiring, y) or ("none", y)
    return Epilogue(y, activation, added)


def _activation(wiring: Wiring, name: str) -> tuple[str, str] | None:
    """The activation that is all that is made of `name`, and its value."""
    reader = wiring.only_reader(name)
    if reader is not None and is_standard(reader, "Relu"):
        return "relu", reader.output[0]
    after = gelu_after(wiring, name)
    return None if after is None else ("gelu", after)


def _clipped(wiring: Wiring, name: str) -> tuple[str, str] | None:
    """The same for a ReLU6."""
    reader = wiring.only_reader(name)
    return ("relu6", reader.output[0]) if reader is not None and clip_limits(wiring, reader) == (0.0, 6.0) else None


def clip_limits(wiring: Wiring, node: onnx.NodeProto) -> tuple[float | None, float | None] | None:
    """The least and greatest value that a `Clip` lets through, None where it has none; None for anything else."""
    if not is_standard(node, "Clip"):
        return None
    about = attributes(node)
    if len(node.input) == 1:
        return about.get("min"), about.get("max")
    named = [node.input[at] if at < len(node.input) else "" for at in (1, 2)]
    numbers = [wiring.number(name) if name else None for name in named]
    return None if any(name and number is None for name, number in zip(named, numbers)) else (numbers[0], numbers[1])


def _sum(wiring: Wiring, name: str) -> tuple[str, str] | None:
    """What is added to `name`, and the sum.

    Of two products that are added to one another the later one adds: the other is there by then.
    """
    reader = wiring.only_reader(name)
    if reader is None or not is_standard(reader, "Add"):
        return None
    other = other_input(reader, name)
    if other == name or wiring.floats(other) != wiring.floats(name):
        return None
    later = wiring.producers[name] > wiring.producers.get(other, -1)
    return (other, reader.output[0]) if later else None
