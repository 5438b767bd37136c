"""Modules in the place of a network's blocks, which its own code calls as it called them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten


@dataclass(frozen=True)
class Form:
    """What a block gives: its tokens at leaf `main` of `tree`, and `rest` beside them.

    Other tensors beside them (attention weights, say) are None here: a network that needs them does not run.
    """

    tree: Any
    rest: tuple[Any, ...]
    main: int

    def __deepcopy__(self, memo: object) -> Form:
        """Itself, as nothing in it changes."""
        return self

    def holding(self, tokens: Tensor) -> Any:
        """The same of other tokens."""
        leaves = list(self.rest)
        leaves[self.main] = tokens
        return tree_unflatten(leaves, self.tree)


def forms_of(module: nn.Module, paths: Sequence[str], inputs: Sequence[Tensor]) -> Mapping[str, Form]:
    """In which form the modules at `paths` give their tokens as `module` runs."""
    found: dict[str, Form] = {}

    def noting(path: str) -> Callable[..., None]:
        def note(block: nn.Module, args: Any, result: Any) -> None:
            leaves, tree = tree_flatten(result)
            found[path] = Form(tree, tuple(None if isinstance(x, Tensor) else x for x in leaves), _main(leaves))

        return note

    handles = [module.get_submodule(path).register_forward_hook(noting(path)) for path in paths]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


class Instead(nn.Module):
    """Gives what `inner` makes of the first tensor of real numbers, in the form in which a block gave its tokens."""

    def __init__(self, inner: nn.Module, form: Form) -> None:
        super().__init__()
        self.inner, self.form = inner, form

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """In the place of the block's."""
        leaves, _ = tree_flatten((args, kwargs))
        return self.form.holding(self.inner(leaves[_main(leaves)]))


def _main(leaves: Sequence[Any]) -> int:
    return next(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point())
