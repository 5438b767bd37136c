"""What products and shifts of one layer take on the target."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgewright.errors import RefusedError
from edgewright.protocols import Context
from edgewright.torchkit.data import Inputs
from edgewright.torchkit.fakequant import QuantizedLayer
from edgewright.torchkit.fakequant_prepare import Layer, calibrate, run, usual_grids, watched
from edgewright.types import Model, Signature, Stage, TensorSpec, TorchGraph, Variant
from edgewright_plugins.shiftadd.layers import ShiftLayer


def measured(module: nn.Module, path: str, example: Inputs, context: Context) -> list[float]:
    """Latencies in ms of the linear layer at `path` with products and with shifts, for one example's tokens.

    Measured side by side on the device where there is one, else predicted for the target.

    Raises: RefusedError when neither is possible here.
    """
    layer = module.get_submodule(path)
    given: list[Tensor] = []
    with watched([layer], lambda _, args: given.append(args[0].detach())):
        run(module, [tuple(tensor[:1] for tensor in example)])
    tokens = given[0]
    # An inner layer: those at the ends have other grids.
    weights, inputs = usual_grids([Layer(path, bool(tokens.min() >= 0))], 8, 8)[path]
    experts = {
        "products": QuantizedLayer(copy.deepcopy(layer), weights, inputs),
        "shifts": ShiftLayer(copy.deepcopy(layer), inputs),
    }
    for expert in experts.values():
        calibrate(expert.eval(), [(tokens,)])
    found = context.cost({name: _alone(name, expert, tokens) for name, expert in experts.items()})
    values = [found[name].value for name in experts]
    if not all(each.value for each in values):
        raise RefusedError(f"no latency is known here ({values[0].reason}); write latencies=PRODUCTS+SHIFTS")
    return [float(each.value or 0.0) for each in values]


def _alone(name: str, expert: nn.Module, tokens: Tensor) -> Model:
    """A layer as a model of its own."""
    with torch.no_grad():
        given = expert(tokens)
    inputs, outputs = (TensorSpec(title, "float32", tuple(each.shape)) for title, each in (("x", tokens), ("y", given)))
    stage = Stage("main", TorchGraph(expert, f"{name} of a mixture {tuple(tokens.shape)}"), ("x",), ("y",))
    return Model(name, Signature((inputs,), (outputs,)), (Variant("main", (stage,)),), {"x": tokens.numpy()})
