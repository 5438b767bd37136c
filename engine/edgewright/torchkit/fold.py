"""Folds batch norms into the layers before them, in any module: found by one run, without tracing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgewright.torchkit.data import Inputs
from edgewright.torchkit.fakequant import QuantizedLayer, is_layer, output_axis
from edgewright.torchkit.losses import outputs_of

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold(module: nn.Module, inputs: Inputs) -> list[str]:
    """Fold every batch norm that `pairs` finds, in place; it becomes an Identity. Returns their paths.

    In evaluation the module gives what it gave, up to float32; a rounding layer keeps the very same codes, up to the
    sign of a channel whose norm has a negative factor.
    """
    found = pairs(module, inputs)
    for layer, norm in found:
        fold_pair(module.get_submodule(layer), module.get_submodule(norm))
        parent, _, name = norm.rpartition(".")
        setattr(module.get_submodule(parent), name, nn.Identity())
    return [norm for _, norm in found]


def pairs(module: nn.Module, inputs: Inputs) -> list[tuple[str, str]]:
    """The paths of (layer, batch norm) where the norm is all that reads the layer's output; each ran once."""
    run = _watch(module, inputs)
    made = {id(output): path for path, output in run.made}
    calls = Counter(path for path, _ in run.made) + Counter(path for path, _ in run.read)
    found = [(made[id(given)], norm, given) for norm, given in run.read if id(given) in made]
    return [
        (layer, norm)
        for layer, norm, given in found
        if calls[layer] == calls[norm] == 1
        and run.uses[id(given)] == 1
        and _fits(module.get_submodule(layer), module.get_submodule(norm), given)
    ]


def _fits(layer: nn.Module, norm: Any, output: Tensor) -> bool:
    weight: Any = layer.weight
    spatial = weight.ndim > 2
    counted = norm.running_mean is not None
    return counted and (spatial or output.ndim == 2) and norm.num_features == weight.shape[output_axis_of(layer)]


def output_axis_of(layer: nn.Module) -> int:
    """The weight's axis of output channels."""
    return layer.axis if isinstance(layer, QuantizedLayer) else output_axis(layer)


class _Run(TorchDispatchMode):
    """What layers made, what norms read, and how many operators read each tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, Tensor]] = []
        self.read: list[tuple[str, Tensor]] = []
        self.uses: Counter[int] = Counter()

    def add(self, path: str, output: Tensor) -> None:
        """Note what a layer made; from here on it is kept, so that nothing else gets its id."""
        self.made.append((path, output))
        self.uses[id(output)] = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what the operator reads, and run it."""
        self.uses.update({id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)})
        return func(*args, **(kwargs or {}))


def _watch(module: nn.Module, inputs: Inputs) -> _Run:
    run = _Run()
    handles: list[Any] = []
    for path, each in module.named_modules():
        if is_layer(each) or isinstance(each, QuantizedLayer):
            handles.append(each.register_forward_hook(lambda _m, _a, out, path=path: run.add(path, out)))
        elif type(each) in NORMS:
            handles.append(each.register_forward_pre_hook(lambda _m, args, path=path: run.read.append((path, args[0]))))
    training = module.training
    try:
        with torch.no_grad(), run:
            returned = module.eval()(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        module.train(training)
    run.uses.update(id(output) for output in outputs_of(returned))
    return run


def fold_pair(layer: Any, norm: Any) -> None:
    """gamma (W x + b - mean) / deviation + beta  =  (W k) x + (b - mean) k + beta,  with k = gamma / deviation.

    A rounding layer's step per channel grows by |k|, and its weight becomes the rounded one times k, so that
    weight / step is the same whole number as before, with k's sign.
    """
    with torch.no_grad():
        factor = torch.rsqrt(norm.running_var + norm.eps)
        factor = factor if norm.weight is None else factor * norm.weight
        shift = torch.zeros_like(factor) if norm.bias is None else norm.bias
        bias = torch.zeros_like(factor) if layer.bias is None else layer.bias
        layer.bias = nn.Parameter((bias - norm.running_mean) * factor + shift)
        axis = output_axis_of(layer)
        spread = factor.reshape([-1 if i == axis else 1 for i in range(layer.weight.ndim)])
        if isinstance(layer, QuantizedLayer):
            layer.weight.copy_(layer.weights(layer.weight))
            layer.weights.widen(factor.abs())
            ends = torch.stack([layer.least, layer.most]).sub(norm.running_mean).mul(factor).add(shift)
            layer.least.copy_(ends.amin(0))
            layer.most.copy_(ends.amax(0))
        layer.weight.mul_(spread)
