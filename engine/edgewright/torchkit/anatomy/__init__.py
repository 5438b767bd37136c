"""The anatomy of a torch network: its blocks, attentions, MLPs, norms, head and tokens, whoever wrote its code.

Nothing here is written for one architecture. The network runs once on its example; below the level at which networks
differ, every tensor is followed from layer to layer. So a query is what the scores of an attention came from, an MLP is
a pair of layers that lead from the block's width back to it, and a block is a repeated module on a residual path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgewright.torchkit.anatomy.parts import Anatomy, Attention, Block, Head, Mlp, TokenGrid

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Anatomy", "Attention", "Block", "Head", "Mlp", "TokenGrid", "examine"]


def examine(module: nn.Module, inputs: Sequence[Tensor], description: Mapping[str, Any] | None = None) -> Anatomy:
    """The parts of `module`, seen as it runs on `inputs`.

    Args:
        module: any network; it runs in evaluation mode and is left as it was.
        inputs: its example inputs, by position.
        description: what the user says of it, which wins over what is found; `describe.FORMAT` shows the entries.

    Raises: RefusedError when no blocks are found; TaskError for a description that does not fit; what `module` raises.
    """
    from edgewright.torchkit.anatomy.describe import read_description
    from edgewright.torchkit.anatomy.examining import examine_module

    return examine_module(module, inputs, read_description(module, description or {}))
