"""Masks that were made for all tokens, in networks that have fewer by now."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def fitting(mask: Tensor | None, key: Tensor) -> Tensor | None:
    """The mask of an attention over `key` [..., n, d], or None for one over other tokens while a graph is captured.

    Libraries make a mask that hides nothing where they cannot look at it, and give it to every block. Outside of that
    a mask that does not fit is an error, and the network is refused; and whether a graph computes what its module
    does is checked when it is lowered.
    """
    if mask is not None and torch.compiler.is_exporting() and mask.shape[-1] not in (1, key.shape[-2]):
        return None
    return mask


class FittingMasks(TorchFunctionMode):
    """While this lasts, torch's attention function is given masks that fit."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`."""
        kwargs = dict(kwargs or {})
        if func is functional.scaled_dot_product_attention and kwargs.get("attn_mask") is not None:
            kwargs["attn_mask"] = fitting(kwargs["attn_mask"], args[1] if len(args) > 1 else kwargs["key"])
        return func(*args, **kwargs)
