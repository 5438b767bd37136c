"""Finds the convolutions of any network whose outputs can be left out: those that an activation alone reads."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgewright.torchkit.fold import pairs

LEAST_INPUTS = 8
"""Channels below which a predictor sees too little: those of an image."""
ACTIVATIONS = frozenset(("relu", "relu6", "hardtanh", "leaky_relu", "gelu", "silu", "hardswish", "mish"))
NEVER_NEGATIVE = frozenset(("relu", "relu6", "sigmoid", "hardsigmoid", "_softmax", "abs", "exp"))
KEEPS_SIGNS = frozenset((
    "max_pool2d_with_indices", "max_pool2d", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d", "mean", "add",
    "mul", "cat", "view", "_unsafe_view", "reshape", "constant_pad_nd", "slice", "clone", "detach", "alias",
    "upsample_nearest2d", "permute", "transpose",
))  # fmt: skip
"""Operators that give nothing negative of what is not: `constant_pad_nd` where it pads with zeros."""


@dataclass(frozen=True)
class Unit:
    """A convolution, the batch norm behind it, and what it costs: `macs` multiply-accumulates for one example.

    `block` output channels are left out together. `signless` inputs are never negative, so that a channel whose mean is
    0 is empty; `pixels` are those of an input.
    """

    conv: str
    norm: str | None
    block: int
    signless: bool
    macs: int
    pixels: int


def units_of(module: nn.Module, example: Sequence[Tensor], block: int) -> list[Unit]:
    """The convolutions that may skip blocks of `block` output channels, or of half of what they have, in call order."""
    norms = dict(pairs(module, tuple(example)))
    watch = _watched(module, example)
    calls = Counter(path for path, _, _ in watch.ran)
    leaving = {path: out for path, _, out in watch.ran}
    found: list[Unit] = []
    for path, x, out in watch.ran:
        conv: Any = module.get_submodule(path)
        if not isinstance(conv, nn.Conv2d) or calls[path] > 1 or not _splits(conv):
            continue
        if not watch.activated(leaving[norms[path]] if path in norms else out):
            continue
        pixels = x.shape[2] * x.shape[3]
        macs = conv.weight.numel() * out.shape[2] * out.shape[3]
        found.append(
            Unit(path, norms.get(path), min(block, conv.out_channels // 2), id(x) in watch.signless, macs, pixels)
        )
    return found


def _splits(conv: nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return plain and conv.in_channels >= LEAST_INPUTS and conv.out_channels > 1


class _Watch(TorchDispatchMode):
    """Which operators read each tensor, in order, and which tensors are never negative."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[tuple[str, Tensor, Tensor]] = []
        self.readers: dict[int, list[str]] = defaultdict(list)
        self.signless: set[int] = set()
        self.held: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, and note what it reads and makes; everything is held, so that no id is given twice."""
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = str(func.name()).removeprefix("aten::").partition(".")[0]
        name = written.rstrip("_")
        signless = name in NEVER_NEGATIVE or (name == "hardtanh" and len(args) > 1 and args[1] >= 0)
        signless = signless or (name in KEEPS_SIGNS and all(id(each) in self.signless for each in given))
        for each in given:
            self.readers[id(each)].append(written)
        made = func(*args, **(kwargs or {}))
        ids = {id(leaf) for leaf in tree_leaves(made) if isinstance(leaf, Tensor)}
        self.signless = self.signless | ids if signless else self.signless - ids
        self.held += [given, made]
        return made

    def activated(self, value: Tensor) -> bool:
        """Whether an activation reads `value`, and nothing else does unless it was overwritten by then."""
        first, *others = self.readers[id(value)] or [""]
        return first.rstrip("_") in ACTIVATIONS and (not others or first.endswith("_"))


def _watched(module: nn.Module, example: Sequence[Tensor]) -> _Watch:
    watch = _Watch()

    def note(path: str) -> Any:
        return lambda _module, args, out: watch.ran.append((path, args[0], out))

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    handles = [each.register_forward_hook(note(p)) for p, each in module.named_modules() if isinstance(each, kinds)]
    try:
        with torch.no_grad(), watch:
            module(*example)
    finally:
        for handle in handles:
            handle.remove()
    return watch
