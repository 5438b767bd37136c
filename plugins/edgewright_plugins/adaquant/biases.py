"""Bias tuning: biases alone are trained until the outputs are near the float ones (arXiv:2006.10518, section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgewright.errors import RefusedError
from edgewright.torchkit.data import Batch, Inputs
from edgewright.torchkit.fit import fit
from edgewright.torchkit.losses import distilled
from edgewright.torchkit.training import Training
from edgewright.types import Array, Arrays
from edgewright_plugins.lift.check import lift_checked
from edgewright_plugins.qdq.layers import constant, layers_of, with_constants
from edgewright_plugins.qdq.tune import Adapted

BATCH = 50
RATE = 1e-3
EPOCHS, STEPS = 10, 200
"""Passes over the examples, and the steps that they make at least."""


@dataclass(frozen=True, eq=False)
class _Examples:
    """Unlabelled examples in memory, in another order each epoch."""

    arrays: Inputs
    seed: int

    def __len__(self) -> int:
        return math.ceil(len(self.arrays[0]) / BATCH)

    def epoch(self, number: int) -> Iterator[Batch]:
        order = np.random.default_rng((self.seed, number)).permutation(len(self.arrays[0]))
        for start in range(0, len(order), BATCH):
            rows = torch.from_numpy(order[start : start + BATCH])
            yield Batch(tuple(array[rows] for array in self.arrays), None)


def tune_biases(
    proto: onnx.ModelProto,
    adapted: Adapted,
    feeds: Sequence[Arrays],
    *,
    seed: int,
    progress: Callable[[int, int], None],
) -> Adapted:
    """Other biases, with which the outputs of the rounded weights are nearer to the float ones.

    The distance is the divergence of the classes (the squared error of other outputs); no label is read. Activations
    are not rounded meanwhile: a bias moves what all examples share, which their rounding does not.

    Args:
        proto: the prepared float graph.
        adapted: constants and encodings so far.
        feeds: unlabelled examples.
        seed: of their order.
        progress: called with the steps that are done and the number of all.

    Raises: RefusedError where the graph has no form in torch, its batch cannot grow, or nothing has a bias.
    """
    first = {value.name: feeds[0][value.name] for value in proto.graph.input}
    teacher, _, problem = lift_checked(proto, first)
    if problem:
        raise RefusedError(f"the batch of the graph cannot grow: {problem}")
    student, _, _ = lift_checked(with_constants(proto, _rounded(proto, adapted)), first)
    biases = biases_of(student, proto, adapted)
    if not biases:
        raise RefusedError("no layer has a bias of its own")
    student.requires_grad_(False)
    for bias in biases.values():
        bias.requires_grad_(True)
    joined = tuple(torch.from_numpy(np.concatenate([feed[name] for feed in feeds])) for name in first)
    data = _Examples(joined, seed)
    epochs = max(EPOCHS, math.ceil(STEPS / len(data)))
    training = Training(epochs=epochs, batch=BATCH, rate=RATE, weight_decay=0.0, precision="fp32", seed=seed)
    fit(
        student,
        data,
        training,
        distilled(teacher, weight=1.0),
        progress=lambda _, done, total: progress(done, total),
    )
    found = {name: bias.detach().numpy() for name, bias in biases.items()}
    return replace(adapted, values={**adapted.values, **found})


def _rounded(proto: onnx.ModelProto, adapted: Adapted) -> dict[str, Array]:
    """The constants as the integer graph has them."""
    weights = {name: adapted.values.get(name, constant(proto, name)) for name in _weights(proto, adapted)}
    return {**adapted.values, **{name: adapted.encodings[name].rounded(value) for name, value in weights.items()}}


def _weights(proto: onnx.ModelProto, adapted: Adapted) -> list[str]:
    return [layer.weight for layer in layers_of(proto) if layer.weight in adapted.encodings]


def biases_of(module: torch.fx.GraphModule, proto: onnx.ModelProto, adapted: Adapted) -> dict[str, nn.Parameter]:
    """The parameter of each layer's bias in the lifted module, by the name of its initializer.

    Layers are called in the graph's order, which tells those with equal biases apart.
    """
    called = [module.get_submodule(str(node.target)) for node in module.graph.nodes if node.op == "call_module"]
    waiting = [layer for layer in called if isinstance(getattr(layer, "bias", None), nn.Parameter)]
    found: dict[str, nn.Parameter] = {}
    for layer in layers_of(proto):
        if layer.bias is None or layer.bias in found:
            continue
        value = torch.from_numpy(np.array(adapted.values.get(layer.bias, constant(proto, layer.bias)), np.float32))
        match = next((each for each in waiting if _holds(each, value, layer.weights)), None)
        if match is not None:
            waiting.remove(match)
            found[layer.bias] = _parameter(match)
    return found


def _holds(layer: nn.Module, bias: Tensor, weights: int) -> bool:
    own, weight = _parameter(layer), layer.get_parameter("weight")
    return weight.numel() == weights and own.shape == bias.reshape(-1).shape and torch.equal(own, bias.reshape(-1))


def _parameter(layer: nn.Module) -> nn.Parameter:
    return layer.get_parameter("bias")
