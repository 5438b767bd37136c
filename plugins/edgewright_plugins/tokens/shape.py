"""What a method that leaves out tokens must know of a network, and which networks take fewer tokens at all."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgewright.errors import RefusedError
from edgewright.torchkit.anatomy import Anatomy, Block, examine
from edgewright.torchkit.losses import outputs_of
from edgewright.types import Model, TorchGraph


@dataclass(frozen=True)
class Shape:
    """The blocks of a transformer, and its tokens: `prefix` of them stand for no part of the input, `tokens` do.

    `grid` holds the sizes along which these lie, where that is known; `pooling` is what the head reads of them (see
    `anatomy.Head`). `window` holds the sizes of the windows within which blocks attend; their code then needs all
    tokens. It is empty where each token sees all.
    """

    blocks: tuple[Block, ...]
    tokens: int
    prefix: int
    width: int
    grid: tuple[int, ...] | None
    pooling: str
    window: tuple[int, ...] = ()

    @property
    def ends(self) -> tuple[str, ...]:
        """The modules whose outputs leave the blocks."""
        return tuple(block.end for block in self.blocks)


def module_of(model: Model) -> nn.Module:
    """A copy of the module of the only stage."""
    return copy.deepcopy(cast("TorchGraph", model.graph).module).eval()


def example_of(model: Model) -> list[Tensor]:
    """The example inputs, by position."""
    return [torch.tensor(model.example[spec.name]) for spec in model.signature.inputs]


def shape_of(module: nn.Module, example: Sequence[Tensor], said: Mapping[str, Any], name: str) -> Shape:
    """The blocks and tokens of a network. Raises: RefusedError where no tokens can be left out between its blocks."""
    anatomy = examine(module, example, said)
    reason = _obstacle(anatomy)
    if reason:
        raise RefusedError(f"no tokens can be left out between the blocks of {name}: {reason}")
    stage = anatomy.stages[0]
    pooling = anatomy.head.pooling if anatomy.head else ""
    return Shape(anatomy.blocks, stage.count - stage.prefix, stage.prefix, stage.width, stage.grid, pooling)


def _obstacle(anatomy: Anatomy) -> str:
    """Why tokens cannot become fewer; empty when they can, as far as the parts tell."""
    (stage, *others), blocks = anatomy.stages, anatomy.blocks
    if others:
        sizes = " -> ".join(f"{each.count} of width {each.width}" for each in anatomy.stages)
        return (
            f"they work on grids of several sizes ({sizes}), which windows and poolings need whole, as in Swin; "
            "stvit takes such networks"
        )
    if stage.layout != "tokens":
        return f"they take {stage.layout}, and tokens must lie as [batch, tokens, width]"
    if any(block.attention is None for block in blocks):
        return "not all of them have an attention, and only attention takes any number of tokens"
    if any(block.calls > 1 for block in blocks) or len(blocks) < 2:
        return f"there are {len(blocks)}, or one runs repeatedly"
    return ""


def checked(reduced: nn.Module, module: nn.Module, example: Sequence[Tensor], name: str) -> nn.Module:
    """`reduced`, once it is seen to run and to give outputs of the shapes that `module` gives.

    Raises: RefusedError when its blocks do not take fewer tokens.
    """
    with torch.no_grad():
        wanted = [tuple(tensor.shape) for tensor in outputs_of(module(*example))]
        try:
            found = [tuple(tensor.shape) for tensor in outputs_of(reduced(*example))]
        except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
            raise RefusedError(
                f"the code of {name} does not take fewer tokens than it was built for ({_first_line(error)}); windows "
                "and positions that are added within blocks need all: stvit, quantize and early-exit take such networks"
            ) from error
    if found != wanted:
        raise RefusedError(
            f"with fewer tokens {name} gives {found} in the place of {wanted}: it answers for each token; stvit takes "
            "such networks"
        )
    return reduced


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
