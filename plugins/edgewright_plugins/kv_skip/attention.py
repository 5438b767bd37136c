"""Stands in for torch's attention function while a network runs, whoever wrote its code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an attention: queries, keys and values [b, h, t, d], and what its scores are multiplied by.

    `number` counts the calls of a run from 0. There may be fewer heads of keys and values than of queries.
    """

    number: int
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float

    @property
    def groups(self) -> int:
        """How many heads of queries share one of keys."""
        return self.query.shape[1] // self.key.shape[1]


class Attending(TorchFunctionMode, ABC):
    """While this lasts, `attend` answers in the place of `scaled_dot_product_attention`.

    The masks that the network gives are not looked at: whether it is causal, and nothing else, is seen by comparing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    @abstractmethod
    def attend(self, call: Call) -> Tensor:
        """What the attention gives, [b, h, t, d]."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, or what stands for it."""
        kwargs = dict(kwargs or {})
        if func is functional.scaled_dot_product_attention:
            return self._attended(*args, **kwargs)
        if func is torch.arange:
            return self.counted(func(*args, **kwargs))
        return func(*args, **kwargs)

    def counted(self, numbers: Tensor) -> Tensor:
        """The numbers of tokens, from what a network that sees no earlier ones thinks that they are."""
        return numbers

    def _attended(self, query: Tensor, key: Tensor, value: Tensor, *_: Any, scale: Any = None, **__: Any) -> Tensor:
        call = Call(self.calls, query, key, value, scale or query.shape[-1] ** -0.5)
        self.calls += 1
        return self.attend(call)


def weighed(call: Call, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Softmax of the scores and a bias that hides keys, times the values."""
    keys, values = (shared(each, call.groups) for each in (keys, values))
    return torch.softmax((call.query * call.scale) @ keys.transpose(-1, -2) + bias, dim=-1) @ values


def shared(heads: Tensor, groups: int) -> Tensor:
    """Heads of keys or values, one for each head of queries."""
    return heads if groups == 1 else heads.repeat_interleave(groups, 1)
