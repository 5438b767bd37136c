"""What every method that quantises refuses: integer graphs, and those without layers; some also 16-bit floats."""

from __future__ import annotations

from edgewright.types import Model, Refusal

LAYERS = ("Conv", "Gemm", "MatMul")
MARKS = ("quantize", "integer", "qlinear", "nbits")


def obstacle(model: Model, method: str, layers: tuple[str, ...] = LAYERS, otherwise: str = "") -> Refusal | None:
    """Why `method` cannot work on this model; None when it can.

    What a torch model holds is seen once it is lowered. `otherwise` ends the sentence
    that none of `layers` is there.
    """
    if model.format != "onnx":
        return None
    from edgewright import onnxkit

    proto = onnxkit.read(model.graph)
    found = onnxkit.operators(proto)
    integer = [name for name in found if any(mark in name.lower() for mark in MARKS)]
    if integer or onnxkit.holds_integers(proto):
        seen = ", ".join(integer) or "weights in integers"
        return Refusal(f"it is quantised already (it has {seen}); give the float model")
    if not any(name in found for name in layers):
        return Refusal(f"it has no {' or '.join(layers)} to quantise; {otherwise or f'leave {method} out'}")
    return None


def halved(model: Model, method: str) -> Refusal | None:
    """Why a method that works on 32-bit floats alone cannot work on a model whose layers take 16-bit ones."""
    if model.format != "onnx":
        return None
    from edgewright import onnxkit

    graph = onnxkit.read(model.graph).graph
    short = {tensor.name for tensor in graph.initializer if tensor.data_type in (tensor.FLOAT16, tensor.BFLOAT16)}
    if any(name in short for node in graph.node if node.op_type in LAYERS for name in node.input):
        return Refusal(f"its layers are in 16 bits already; put {method} before the method that did it")
    return None
