"""Runs a network once, below the level at which networks differ in how they are written, and notes what happens."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from edgewright.torchkit.anatomy.trace import NOTHING, Attend, Call, Layer, Names, Norm, Shape, Trace

# What is known of the scores of an attention: layers behind queries and keys, shape, channels per head.
Scores = tuple[Names, Names, Shape, int]

# Products, and where among their arguments the two factors stand.
FACTORS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2), "linear": (0, 1), "mv": (0, 1)}
SOFTMAX = ("_softmax", "_safe_softmax")
NORMS = ("batch_norm", "layer_norm", "group_norm", "rms_norm")
ACTIVATIONS = (
    "gelu",
    "silu",
    "relu",
    "sigmoid",
    "tanh",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "elu",
    "mish",
    "softplus",
)


def record(module: nn.Module, inputs: Sequence[Tensor]) -> Trace:
    """Run `module` on `inputs`, without gradients. Raises: whatever the module raises."""
    recorder = Recorder(module)
    with torch.no_grad(), quiet(module), hooked(module, recorder), recorder:
        for index, tensor in enumerate(inputs):
            recorder.behind[tensor] = frozenset({f"@input {index}"})
        result = module(*inputs)
    recorder.trace.calls.sort(key=lambda call: call.at)
    recorder.trace.gives = recorder.union(tensors(result))
    return recorder.trace


@contextmanager
def quiet(module: nn.Module) -> Generator[None]:
    """Evaluation mode, the same random numbers each time, and attention in pieces that can be seen."""
    training = [each for each in module.modules() if each.training]
    fast = torch.backends.mha.get_fastpath_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.backends.mha.set_fastpath_enabled(False)
        module.eval()
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for each in training:
                each.training = True


@contextmanager
def hooked(module: nn.Module, recorder: Recorder) -> Generator[None]:
    """While this lasts, the recorder hears of every call of a module."""
    handles: list[Any] = []
    try:
        for path, each in module.named_modules():
            handles.append(each.register_forward_pre_hook(recorder.entering(path), with_kwargs=True))
            handles.append(each.register_forward_hook(recorder.leaving, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors(values: Any) -> list[Tensor]:
    """The tensors in nested arguments or results, also in other libraries' classes of results."""
    leaves = tree_leaves(values)
    nested = [list(cast("Mapping[Any, Any]", leaf).values()) for leaf in leaves if isinstance(leaf, Mapping)]
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)] + (tensors(nested) if nested else [])


def main_tensor(values: Any) -> Tensor | None:
    """The first tensor of real numbers; the first tensor when there is none."""
    found = tensors(values)
    return next((each for each in found if each.is_floating_point()), found[0] if found else None)


class Recorder(TorchDispatchMode):
    """Follows every tensor from layer to layer.

    `behind` holds the layers behind a tensor; a layer's result has that layer alone behind it. Tensors made of
    parameters only are kept apart in `weights`: a product with one of them is a layer. Marks that start with `@` follow
    attention: scores, what becomes of them in a softmax, and what was attended to.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.trace = Trace()
        self.clock = count(1)
        self.running = [("", module)]
        self.entered: list[tuple[int, Names, Shape]] = []
        self.behind: Any = WeakTensorKeyDictionary()
        self.weights: Any = WeakTensorKeyDictionary()
        self.scores: dict[str, Scores] = {}
        for name, parameter in module.named_parameters():
            self.weights[parameter] = frozenset({name})

    def union(self, given: Sequence[Tensor]) -> Names:
        """All layers behind some tensors."""
        return NOTHING.union(*(self.behind.get(each, NOTHING) for each in given))

    # -------------------------------------------------------------- modules

    def entering(self, path: str) -> Callable[..., None]:
        """The hook that notes that the module at `path` starts."""

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            self.running.append((path, module))
            self.entered.append((next(self.clock), *self._main((args, kwargs))))

        return enter

    def leaving(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        """The hook that notes that a module is done."""
        path, _ = self.running.pop()
        at, fed, in_shape = self.entered.pop()
        gives, out_shape = self._main(result)
        self.trace.calls.append(Call(path, at, next(self.clock), fed, gives, in_shape, out_shape))

    def _main(self, values: Any) -> tuple[Names, Shape]:
        first = main_tensor(values)
        return (NOTHING, ()) if first is None else (self.behind.get(first, NOTHING), tuple(first.shape))

    # -------------------------------------------------------------- operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute an operator, and note what is behind its result."""
        result = func(*args, **(kwargs or {}))
        given = tensors((args, kwargs or {}))
        names = self._names(func.__name__.partition(".")[0], args, given, result)
        weights = NOTHING if names else NOTHING.union(*(self.weights.get(each, NOTHING) for each in given))
        for each in tensors(result):
            self.behind[each], self.weights[each] = names, weights
        return result

    def _names(self, name: str, args: Any, given: Sequence[Tensor], result: Any) -> Names:
        """What is behind the result of an operator."""
        if name in FACTORS:
            first, second = FACTORS[name]
            return self._product(args[first], args[second], result)
        if name == "convolution":
            return self._convolution(args, result)
        if name == "embedding":
            return self._layer("embedding", args[0], args[1], (args[0].shape[0], args[0].shape[1]))
        if name.startswith("_scaled_dot_product"):
            query, key, value = args[:3]
            scores = (*query.shape[:-1], key.shape[-2])
            return self._attend((self._layers(query), self._layers(key), scores, query.shape[-1]), value)
        if name in SOFTMAX:
            return self._softmax(args[0])
        self._note(name, given)
        return self.union(given)

    def _note(self, name: str, given: Sequence[Tensor]) -> None:
        """Norms, and what goes through an activation alone."""
        path, module = self.running[-1]
        by_hand = name == "rsqrt" and any(p.ndim == 1 for p in module.parameters(recurse=False))
        if by_hand or any(norm in name for norm in NORMS):
            self.trace.norms.append(Norm(next(self.clock), path))
        names = self.union(given)
        if name.rstrip("_") in ACTIVATIONS and len(names) == 1:
            self.trace.activated |= names

    def _product(self, first: Tensor, second: Tensor, result: Tensor) -> Names:
        """A layer when one factor is a weight; else scores of an attention, or what was attended to."""
        if self.weights.get(second):
            return self._layer("linear", second, first, (first.shape[-1], result.shape[-1]))
        if self.weights.get(first):
            return self._layer("linear", first, second, (second.shape[-2], result.shape[-2]))
        for probabilities, value, dim in ((first, second, -1), (second, first, -2)):
            for mark in self.behind.get(probabilities, NOTHING):
                if mark.startswith("@softmax"):
                    return self._attend(self.scores[mark], value, dim)
        mark = f"@scores {next(self.clock)}"
        self.scores[mark] = (self._layers(first), self._layers(second), tuple(result.shape), first.shape[-1])
        return self.union([first, second]) | {mark}

    def _softmax(self, given: Tensor) -> Names:
        """Scores become probabilities; any other softmax changes nothing here."""
        names = self.union([given])
        marks = [mark for mark in names if mark in self.scores and mark.startswith("@scores")]
        if not marks:
            return names
        query, key, _, head_dim = self.scores[max(marks, key=lambda mark: int(mark.split()[1]))]
        mark = f"@softmax {next(self.clock)}"
        self.scores[mark] = (query, key, tuple(given.shape), head_dim)
        return frozenset({mark})

    def _attend(self, scores: Scores, value: Tensor, dim: int = -1) -> Names:
        """An attention; channels of the values lie along `dim`."""
        query, key, shape, head_dim = scores
        found = Attend(next(self.clock), query, key, self._layers(value), shape, head_dim, value.shape[dim])
        self.trace.attends.append(found)
        return frozenset({found.mark})

    def _layers(self, given: Tensor) -> Names:
        """The layers behind a tensor, without marks."""
        return frozenset(name for name in self.behind.get(given, NOTHING) if not name.startswith("@"))

    def _convolution(self, args: Any, result: Tensor) -> Names:
        given, weight, groups = args[0], args[1], args[8]
        wide = (given.shape[1], result.shape[1])
        pointwise = all(size == 1 for size in weight.shape[2:])
        return self._layer("conv", weight, given, wide, pointwise=pointwise, depthwise=1 < groups == given.shape[1])

    def _layer(
        self,
        kind: str,
        weight: Tensor,
        given: Tensor,
        wide: tuple[int, int],
        *,
        pointwise: bool = True,
        depthwise: bool = False,
    ) -> Names:
        fed = self.behind.get(given, NOTHING)
        names = self.weights.get(weight, NOTHING)
        if not names:
            return fed
        path = self._path(weight, names)
        positions = given.numel() // (1 if kind == "embedding" else wide[0])
        self.trace.layers.append(Layer(next(self.clock), path, kind, *wide, positions, fed, pointwise, depthwise))
        return frozenset({path})

    def _path(self, weight: Tensor, names: Names) -> str:
        """The module that a weight belongs to, or the parameter where a module keeps several."""
        path, module = self.running[-1]
        own = [attr for attr, p in module.named_parameters(recurse=False) if self.weights[p] <= names]
        if any(attr.startswith("weight") for attr in own):
            return path
        if own:
            return f"{path}.{own[0]}".lstrip(".")
        return min(names).partition(".parametrizations.")[0].removesuffix(".weight")
