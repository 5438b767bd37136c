"""The plainest head: the mean of all tokens or pixels, a norm, and a linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgewright.torchkit.anatomy import TokenGrid
from edgewright_plugins.early_exit.heads.tokens import Pooled
from edgewright_plugins.early_exit.side import State


class LinearHead(nn.Module):
    """An exit with a single layer."""

    kind = "linear"

    def __init__(self, grid: TokenGrid, classes: int, reads: Sequence[int] = ()) -> None:
        """`grid` is what the block gives, `reads` are the positions that the network's own head reads."""
        super().__init__()
        self.answer = Pooled(grid, classes, reads)
        self.features: Tensor | None = None

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """Logits [b, classes]; `x` and the state pass as they are."""
        return x, state, self.answer(x)
