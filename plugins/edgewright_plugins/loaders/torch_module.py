"""From a torch module and example inputs to a Model: names, signature, digest, calling convention."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.asking.userfile import Reference, call_in
from edgewright.errors import ModelError
from edgewright.torchkit.weights import digest_of
from edgewright.types import Arrays, Model, Signature, Stage, TensorSpec, TorchGraph, Variant


class Positional(nn.Module):
    """A module behind the engine's calling convention: tensors in by position, a flat tuple of them out."""

    def __init__(self, module: nn.Module, keywords: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.keywords = tuple(keywords)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The outputs in the order in which the module gives them."""
        result = self.module(**dict(zip(self.keywords, tensors, strict=True)))
        return tuple(tensor for _, tensor in _flat(result, "output"))


def read_module(user: ModuleType, reference: Reference) -> nn.Module:
    """The module that `reference` names or builds, on the CPU and in evaluation mode.

    Raises: ModelError when it is something else.
    """
    value = getattr(user, reference.name, None)
    net = value if isinstance(value, nn.Module) else call_in(user, reference, kind="model", error=ModelError)
    if not isinstance(net, nn.Module):
        raise ModelError(f"{reference} gives {type(net).__name__}; it must give a torch.nn.Module")
    return net.cpu().eval()


def argument_names(net: nn.Module, *, positional: bool = False) -> list[str]:
    """The named arguments of `forward`, or only those that may be given by position; none for `*args` alone."""
    named = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    if positional:
        named.remove(inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in inspect.signature(net.forward).parameters.values() if p.kind in named]


def torch_model(net: nn.Module, example: Arrays, *, name: str, source: str, code: str) -> Model:
    """The Model of a module that takes `example` by argument name; `code` stands for its Python.

    The module itself is kept when it follows the calling convention, else wrapped in `Positional`.

    Raises: ModelError when it fails on the example inputs or returns something other than tensors.
    """
    tensors = {key: torch.from_numpy(array) for key, array in example.items()}
    prefix = not argument_names(net) or argument_names(net, positional=True)[: len(tensors)] == list(tensors)
    result = _run(net, source, tensors, by_name=not prefix)
    outputs = _named_outputs(result, source, taken=tensors)
    plain = isinstance(result, Tensor) or (isinstance(result, tuple) and all(isinstance(t, Tensor) for t in result))
    module = net if prefix and plain else Positional(net, tuple(tensors))
    signature = Signature(_specs(tensors), _specs(outputs))
    graph = TorchGraph(module, module_digest(module, code))
    stage = Stage("main", graph, tuple(tensors), tuple(outputs))
    return Model(name, signature, (Variant("main", (stage,)),), dict(example), source=source)


def module_digest(net: nn.Module, code: str) -> str:
    """The sha-256 of `code` and of every entry of the state dict."""
    return hashlib.sha256(f"{code} {digest_of(net)}".encode()).hexdigest()


def _run(net: nn.Module, source: str, tensors: Mapping[str, Tensor], *, by_name: bool) -> Any:
    try:
        with torch.no_grad():
            return net(**tensors) if by_name else net(*tensors.values())
    except Exception as cause:
        given = ", ".join(spec.describe() for spec in _specs(tensors))
        raise ModelError(
            f"{source} failed on its example inputs ({given}): {type(cause).__name__}: {cause}; inputs of another kind "
            "come from --task, or from a function example_inputs() in the file"
        ) from cause


def _named_outputs(result: Any, source: str, *, taken: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as in a dict, else `output`, `output_1`; made different from one another and from the inputs."""
    outputs: dict[str, Tensor] = {}
    for wanted, value in _flat(result, "output"):
        if not isinstance(value, Tensor):
            raise ModelError(
                f"{source} returns {type(value).__name__}; it must return tensors, or tuples or dicts of them"
            )
        name, number = wanted, 1
        while name in outputs or name in taken:
            name, number = f"{wanted}_{number}", number + 1
        outputs[name] = value
    if not outputs:
        raise ModelError(f"{source} returns no tensor")
    return outputs


def _flat(result: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(result, Mapping):
        for key, value in result.items():
            yield from _flat(value, str(key))
    elif isinstance(result, (tuple, list)):
        for value in result:
            yield from _flat(value, name)
    elif result is not None:
        yield name, result


def _specs(tensors: Mapping[str, Tensor]) -> tuple[TensorSpec, ...]:
    def dtype(tensor: Tensor) -> str:
        return str(tensor.dtype).removeprefix("torch.")

    return tuple(TensorSpec(name, dtype(t), tuple(t.shape)) for name, t in tensors.items())
