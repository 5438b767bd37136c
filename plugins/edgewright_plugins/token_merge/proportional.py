"""Tells attention how many tokens each one stands for, whoever wrote its code (ToMe, arXiv:2210.09461, eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from edgewright_plugins.tokens.masks import fitting

SOFTMAX = (torch.softmax, Tensor.softmax, functional.softmax)


@dataclass
class Flow:
    """What is known of the tokens during one run: how many each stands for [b, n], and where each first one went.

    `size` is None while no token stands for several, and `origin` [b, tokens] where nobody asks for it. `keys` are
    those of the block that runs. `told` counts the attentions that weigh tokens by their size.
    """

    size: Tensor | None = None
    origin: Tensor | None = None
    keys: Tensor | None = None
    told: int = 0


class Proportional(TorchFunctionMode):
    """While this lasts, softmaxes over tokens get the logarithm of their sizes added to their scores.

    A key that stands for s tokens then weighs as much as s equal keys. Seen are softmaxes over scores
    [b, heads, queries, n] and torch's attention function; what does them some other way goes on untold.
    """

    def __init__(self, flow: Flow, prefix: int) -> None:
        """The first `prefix` tokens stand for themselves."""
        super().__init__()
        self.flow, self.prefix = flow, prefix

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, with what it is given adjusted where it is an attention's."""
        kwargs = dict(kwargs or {})
        if self.flow.size is not None:
            if func in SOFTMAX and args:
                args = (self._scores(args[0]), *args[1:])
            elif func is functional.scaled_dot_product_attention and len(args) < 4 and not kwargs.get("is_causal"):
                self._masked(args[1] if len(args) > 1 else kwargs["key"], kwargs)
        return func(*args, **kwargs)

    def _scores(self, scores: Tensor) -> Tensor:
        bias = self._bias(scores.ndim, scores.shape[-1])
        return scores if bias is None else scores + bias

    def _masked(self, key: Tensor, kwargs: dict[str, Any]) -> None:
        bias, mask = self._bias(key.ndim, key.shape[-2]), fitting(kwargs.get("attn_mask"), key)
        if bias is None:
            return
        if mask is None:
            kwargs["attn_mask"] = bias
        else:
            kwargs["attn_mask"] = bias + mask if mask.is_floating_point() else bias.masked_fill(~mask, float("-inf"))

    def _bias(self, axes: int, tokens: int) -> Tensor | None:
        """The logarithms [b, 1, 1, n]; None for what does not go over all tokens."""
        size = self.flow.size
        if size is None or axes != 4 or tokens != self.prefix + size.shape[1]:
            return None
        self.flow.told += 1
        return functional.pad(size.log(), (self.prefix, 0))[:, None, None, :]
