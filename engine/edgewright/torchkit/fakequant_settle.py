"""Turns a module that trained with rounding layers into the one that kernels of integers compute.

Between the integers that a module learns, such a kernel rounds twice more: a bias to a whole number of input steps
times weight steps, and, where nobody else rounds it next, the output of a convolution to 8 bits. Training need not see
either; what is exported, and what its accuracy is read from, has to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgewright.grids import ACTIVATIONS, encode_range
from edgewright.torchkit.data import Inputs
from edgewright.torchkit.fakequant import QuantizedLayer, Quantizer
from edgewright.torchkit.fold import fold
from edgewright.torchkit.losses import outputs_of

WIDEST = 2.0**30
"""The largest bias in units of its scale; int32 holds twice as much."""
ROUNDING = torch.ops.edgewright.fake_quantize.default
CARRIERS = frozenset({
    torch.ops.aten.relu.default,
    torch.ops.aten.relu_.default,
    torch.ops.aten.max_pool2d_with_indices.default,
    torch.ops.aten.view.default,
})  # fmt: skip
"""Rounding to a grid that starts at 0 may as well happen before these, and runtimes know it."""


def settle(module: nn.Module, inputs: Inputs) -> nn.Module:
    """Fold the batch norms and round biases and loose outputs, in place and for evaluation; twice is as good as once.

    Outputs stay as they are in layers that were never observed (`fakequant_prepare.observe`).
    """
    fold(module, inputs)
    for layer in _layers(module):
        if layer.inputs is not None and layer.inputs.rounds and layer.bias is not None:
            _round_bias(layer, layer.inputs.positive())
        if layer.weights.rounds and type(layer.weights) is not Quantizer:
            _fix_weight(layer)
    for layer in loose(module, inputs):
        low, high = float(layer.least.min()), float(layer.most.max())
        if low < high < torch.inf:
            layer.outputs = Quantizer(ACTIVATIONS, batched=True).eval()
            layer.outputs.take(encode_range(ACTIVATIONS, low, high))
    return module


def _layers(module: nn.Module) -> list[QuantizedLayer]:
    return [each for each in module.modules() if isinstance(each, QuantizedLayer)]


def _round_bias(layer: QuantizedLayer, step: Tensor) -> None:
    """Round the bias to a whole number of `step` times the weight's step, which grows where int32 has too few.

    It does where a channel is next to nothing beside its bias, so that what its weights lose does not count.
    """
    with torch.no_grad():
        bias, weights = layer.bias.double(), layer.weights
        needed = bias.abs() / (step * WIDEST)
        needed = needed if weights.scale.ndim else needed.amax()
        weights.scale.copy_(torch.maximum(weights.positive(), needed))
        unit = step * weights.positive()
        layer.bias.copy_((bias / unit).round() * unit)


def _fix_weight(layer: QuantizedLayer) -> None:
    """Let the weight be what it is rounded to, which plain rounding then leaves as it is.

    Finding it may take dozens of operators (shifts do), and an exporter would trace them in every layer.
    """
    found = layer.weights
    plain = Quantizer(found.grid, axis=found.axis, channels=found.scale.numel())
    plain.take(found.encoding())
    with torch.no_grad():
        layer.weight.copy_(layer.rounded())
    layer.weights = plain.eval()


# ------------------------------------------------------------------ which outputs nobody rounds next


def loose(module: nn.Module, inputs: Inputs) -> list[QuantizedLayer]:
    """The convolutions of integers whose output does not go to one rounding right behind them, and nowhere else.

    Kernels of linear layers give sums of integers as floats, so those need no rounding.
    """
    run = _watch(module, inputs)
    return [
        layer
        for layer, outputs in run.made.items()
        if layer.weight.ndim > 2 and layer.inputs is not None and layer.outputs is None
        if len(outputs) > 1 or not run.rounded(outputs[0])
    ]


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _watch(module: nn.Module, inputs: Inputs) -> _Run:
    run = _Run()
    handles = [layer.register_forward_hook(run.add) for layer in _layers(module)]
    training = module.training
    try:
        with torch.no_grad(), run:
            returned = module.eval()(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        module.train(training)
    for output in outputs_of(returned):
        run.reads.setdefault(id(output), []).append((None, output.new_empty(0)))
    return run


class _Run(TorchDispatchMode):
    """What layers made, and which operators made what of it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[QuantizedLayer, list[Tensor]] = {}
        self.reads: dict[int, list[tuple[Any, Tensor]]] = {}
        self.kept: list[Any] = []

    def add(self, layer: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        """Note what a layer made."""
        self.made.setdefault(layer, []).append(output)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and note what it read."""
        result = func(*args, **(kwargs or {}))
        # Tensors that are kept keep their ids to themselves.
        self.kept.append((args, kwargs, result))
        made = _tensors(result)[:1]
        for name in {id(tensor) for tensor in _tensors((args, kwargs))}:
            self.reads.setdefault(name, []).extend((func, tensor) for tensor in made)
        return result

    def rounded(self, tensor: Tensor) -> bool:
        """Whether the tensor reaches one rounding and nothing else, over carriers at most."""
        readers = self.reads.get(id(tensor), [])
        others = [(func, made) for func, made in readers if made is not tensor]
        in_place = {func for func, made in readers if made is tensor}
        if len(others) != 1 or not in_place <= CARRIERS:
            return False
        func, made = others[0]
        return func is ROUNDING or (func in CARRIERS and self.rounded(made))
