"""Finds what follows a product that its kernel can do as well."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgewright_exporters.onnx_kernels.gelus import gelu_after
from edgewright_exporters.onnx_kernels.reshapes import reshaped
from edgewright_exporters.onnx_kernels.wiring import Wiring, is_standard, other_input


@dataclass(frozen=True)
class Epilogue:
    """An activation, then a value of the same shape that is added; `y` is what comes out."""

    y: str
    activation: str = "none"
    residual: str | None = None


def epilogue_after(wiring: Wiring, name: str) -> Epilogue:
    """What follows `name`, also behind new shapes for the same numbers.

    Each step is taken only where nothing else reads what it would hide.
    """
    return _with_residual(wiring, _activated(wiring, Epilogue(name)))


def _activated(wiring: Wiring, found: Epilogue) -> Epilogue:
    y = reshaped(wiring, found.y)
    reader = wiring.only_reader(y)
    if reader is not None and is_standard(reader, "Relu"):
        return replace(found, activation="relu", y=reader.output[0])
    after = gelu_after(wiring, y)
    return found if after is None else replace(found, activation="gelu", y=after)


def _with_residual(wiring: Wiring, found: Epilogue) -> Epilogue:
    y = reshaped(wiring, found.y)
    reader = wiring.only_reader(y)
    if reader is None or not is_standard(reader, "Add"):
        return found
    residual = other_input(reader, y)
    if residual == y or wiring.floats(residual) != wiring.floats(y):
        return found
    return replace(found, residual=residual, y=reader.output[0])
