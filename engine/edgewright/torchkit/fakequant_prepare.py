"""Puts rounding layers into a module: which layers, on which grids, with which steps to start from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.errors import ModelError
from edgewright.grids import ACTIVATIONS, WEIGHTS, Grid
from edgewright.torchkit.data import Inputs
from edgewright.torchkit.fakequant import QuantizedLayer, Quantizer, is_layer
from edgewright.torchkit.fold import NORMS


@dataclass(frozen=True)
class Layer:
    """A layer as a run found it. `positive` says that no input below zero was seen."""

    path: str
    positive: bool


def layers_of(module: nn.Module, batches: Iterable[Inputs]) -> list[Layer]:
    """The convolutions and linear layers that ran, in the order of their first call."""
    paths = {each: path for path, each in module.named_modules() if is_layer(each)}
    least: dict[str, float] = {}

    def note(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        path = paths[layer]
        least[path] = min(least.get(path, 0.0), float(args[0].min()))

    with watched(paths, note):
        run(module, batches)
    return [Layer(path, low >= 0) for path, low in least.items()]


@contextlib.contextmanager
def watched(layers: Iterable[nn.Module], note: Callable[[nn.Module, Any], None]) -> Generator[None]:
    """`note` hears each call of the layers with what it is given, inside of the block."""
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run(module: nn.Module, batches: Iterable[Inputs]) -> None:
    """Call the module for what its layers see on the way."""
    training = module.training
    module.eval()
    with torch.no_grad():
        for inputs in batches:
            module(*inputs)
    module.train(training)


Grids = dict[str, tuple[Grid, Grid | None]]
"""Per path of a layer, the grids of its weight and of its input."""


def usual_grids(
    layers: list[Layer], bits: int, activations: int | None, *, edges: int = 8, per: str = "channel"
) -> Grids:
    """Weights symmetric; inputs per tensor, unsigned where none was below zero, else with an offset.

    The first and the last layer get `edges` bits for both, since errors there are never averaged out.
    """
    grids: Grids = {}
    for layer in layers:
        edge = layer in (layers[0], layers[-1])
        weights = replace(WEIGHTS, bits=edges if edge else bits, per=per)
        inputs = None
        if activations is not None:
            inputs = replace(ACTIVATIONS, bits=edges if edge else activations, symmetric=layer.positive)
        grids[layer.path] = (weights, inputs)
    return grids


def prepare(module: nn.Module, grids: Grids) -> nn.Module:
    """Replace layers by rounding ones, in place; paths and the names of weights and biases stay.

    A layer that stands at several paths stays one layer. Steps of inputs are still to be set: `calibrate`.
    Raises: ModelError for a path that holds no such layer.
    """

    def rounding(path: str, layer: nn.Module) -> QuantizedLayer:
        return QuantizedLayer(layer, *grids[path])

    return replaced(module, grids, rounding)


def replaced(module: nn.Module, paths: Iterable[str], make: Callable[[str, nn.Module], nn.Module]) -> nn.Module:
    """Put what `make` makes of the layers at `paths` in their places; as `prepare` otherwise."""
    made: dict[nn.Module, nn.Module] = {}
    for path in paths:
        layer = module.get_submodule(path)
        if not is_layer(layer):
            raise ModelError(f"{path!r} is a {type(layer).__name__}, not a layer that can round its weight")
        made[layer] = make(path, layer)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if child in made:
                setattr(parent, name, made[child])
    return module


def calibrate(module: nn.Module, batches: Iterable[Inputs]) -> None:
    """Set the steps of inputs that have none by what the float network hands them over `batches`."""
    fresh = [each for each in module.modules() if isinstance(each, Quantizer) and not each.rounds]
    with passing(module):
        for quantizer in fresh:
            quantizer.seen = []
        run(module, batches)
    for quantizer in fresh:
        seen, quantizer.seen = quantizer.seen, None
        if seen:
            quantizer.start(torch.cat(seen))


def observe(module: nn.Module, batches: Iterable[Inputs]) -> None:
    """Note the ends of what each rounding layer gives over `batches`, per channel: `settle` reads them."""

    def note(layer: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        values = output.flatten(2).transpose(1, 2) if layer.weight.ndim > 2 else output
        values = values.reshape(-1, values.shape[-1])
        layer.least.copy_(torch.minimum(layer.least, values.amin(0)))
        layer.most.copy_(torch.maximum(layer.most, values.amax(0)))

    layers = [each for each in module.modules() if isinstance(each, QuantizedLayer)]
    for layer in layers:
        layer.least.fill_(torch.inf)
        layer.most.fill_(-torch.inf)
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        run(module, batches)
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def passing(module: nn.Module) -> Generator[None]:
    """No quantizer rounds inside of the block: the float network."""
    rounding = [each for each in module.modules() if isinstance(each, Quantizer) and each.rounds]
    for quantizer in rounding:
        quantizer.rounds = False
    try:
        yield
    finally:
        for quantizer in rounding:
            quantizer.rounds = True


def reestimate(module: nn.Module, batches: Iterable[Inputs]) -> None:
    """Batch norms' means and variances anew, as plain averages over `batches`, for the weights as they are now."""
    norms = [each for each in module.modules() if isinstance(each, NORMS)]
    kept = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for inputs in batches if norms else ():
            module(*inputs)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    module.eval()
