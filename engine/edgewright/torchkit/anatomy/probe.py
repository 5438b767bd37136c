"""Finds out by trial what a trace cannot show: which tokens carry the input, and which ones the head reads."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.torchkit.anatomy.record import main_tensor, quiet

Reads = tuple[int, ...]


def fixed_tokens(module: nn.Module, inputs: Sequence[Tensor], paths: Sequence[str], axis: int) -> dict[str, int]:
    """How many of the first tokens that each module at `paths` takes stay the same when the input changes.

    Tokens lie along `axis` of three, channels last. Zero for modules that take something else, and when no input is
    made of real numbers.
    """
    noise = torch.Generator().manual_seed(0)
    changed = [each + torch.randn(each.shape, generator=noise).to(each) if _real(each) else each for each in inputs]
    if not any(_real(each) for each in inputs):
        return dict.fromkeys(paths, 0)
    one, other = (_taken(module, each, paths) for each in (inputs, changed))
    return {path: _same(one[path], other[path], axis) for path in paths}


def _real(tensor: Tensor) -> bool:
    return tensor.is_floating_point()


def _taken(module: nn.Module, inputs: Sequence[Tensor], paths: Sequence[str]) -> Mapping[str, Tensor | None]:
    """What each module took when it was first called."""
    taken: dict[str, Tensor | None] = {}

    def looking(path: str) -> Any:
        def look(_: nn.Module, args: Any, kwargs: Any) -> None:
            found = main_tensor((args, kwargs))
            taken.setdefault(path, None if found is None else found.clone())

        return look

    hooks = (module.get_submodule(path).register_forward_pre_hook(looking(path), with_kwargs=True) for path in paths)
    with torch.no_grad(), quiet(module), _kept(hooks):
        module(*inputs)
    return taken


def _same(one: Tensor | None, other: Tensor | None, axis: int) -> int:
    """How many tokens are equal before the first that is not; none when all are."""
    if one is None or other is None or one.ndim != 3 or one.shape != other.shape:
        return 0
    moved = (one != other).any(dim=2).any(dim=1 - axis).nonzero()
    return int(moved[0, 0]) if len(moved) else 0


def positions_read(
    module: nn.Module, inputs: Sequence[Tensor], end: str, heads: Sequence[str], *, axis: int
) -> Reads | None:
    """The tokens of what the module at `end` gives that reach the modules `heads`; None when gradients cannot tell.

    Tokens lie along `axis` of three, channels last.
    """
    given: list[Tensor] = []
    reached: list[Tensor] = []

    def replace(_: nn.Module, args: Any, result: Any) -> Any:
        given[:] = [torch.randn_like(result[0] if isinstance(result, tuple) else result).requires_grad_()]
        fresh = given[0] * 1  # so that the network may work on it in place
        return (fresh, *result[1:]) if isinstance(result, tuple) else fresh

    def look(_: nn.Module, args: Any) -> None:
        reached.extend(each for each in args if isinstance(each, Tensor))

    hooks = [module.get_submodule(end).register_forward_hook(replace)]
    hooks += [module.get_submodule(path).register_forward_pre_hook(look) for path in heads]
    try:
        with torch.enable_grad(), quiet(module), _kept(hooks):
            module(*inputs)
            return _with_gradient(given[0], reached, axis)
    except (RuntimeError, TypeError, IndexError):  # a step without a gradient, or a result of another form
        return None


def _with_gradient(given: Tensor, reached: Sequence[Tensor], axis: int) -> Reads | None:
    """The tokens of `given` on which any of `reached` depends."""
    # Weighted at random: the plain sum of a layer norm's outputs has no gradient.
    total = torch.stack([(each * torch.randn_like(each)).sum() for each in reached]).sum()
    (gradient,) = torch.autograd.grad(total, given, allow_unused=True)
    if gradient is None or gradient.ndim != 3:  # pyright: ignore[reportUnnecessaryComparison]
        return None
    return tuple(int(index) for index in gradient.abs().sum(dim=(1 - axis, 2)).nonzero()[:, 0])


@contextmanager
def _kept(handles: Iterable[Any]) -> Generator[None]:
    """The hooks that are registered while this lasts."""
    registered: list[Any] = []
    try:
        registered.extend(handles)
        yield
    finally:
        for handle in registered:
            handle.remove()
