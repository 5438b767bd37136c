"""The branch that makes up best for a layer's error: a product of two thin matrices, weighted by the layer's inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgewright.types import Array

FLOOR = 1e-8
"""Directions in which inputs vary less than this share of the widest one count as varying by that share."""


@dataclass(frozen=True, eq=False)
class Moments:
    """What calibration says of one layer: sums over all rows x (its inputs) and r (what its outputs lack).

    Attributes:
        inputs: sum of x xT, [in, in].
        lack: sum of r xT, [out, in].
        energy: sum of |r|^2.
        wanted: sum of |W x|^2, what `energy` is compared with.
    """

    inputs: Array
    lack: Array
    energy: float
    wanted: float


@dataclass(frozen=True, eq=False)
class Branch:
    """y = (x down) up, with `down` [in, rank] and `up` [rank, out], float32."""

    down: Array
    up: Array

    @property
    def size(self) -> int:
        """How many weights it has."""
        return self.down.size + self.up.size

    @property
    def matrix(self) -> Array:
        """The weights it adds, [out, in]."""
        return (self.down.astype(np.float64) @ self.up).T


def closest_branch(delta: Array, moments: Moments, rank: int) -> Branch:
    """The branch of `rank` with the least squared error of the layer's outputs on the calibration rows.

    Eigenspace low-rank approximation (EoRA, arXiv 2410.21271, algorithm 1): with inputs = Q L QT, the truncated
    singular value decomposition of D Q L^1/2 = U S VT gives up = U S^1/2 and down = S^1/2 VT L^-1/2 QT.
    There D is `delta`, the weights less their rounded values, [out, in]. Here D is the linear map from inputs to
    what the outputs lack, which is `delta` unless the deployed layer does more than round its weights: quantised
    activations add their share by regression.
    """
    spread, basis = np.linalg.eigh(moments.inputs)
    spread = np.maximum(spread, FLOOR * (spread[-1] if spread[-1] > 0 else 1.0))
    drift = moments.lack - delta @ moments.inputs
    lacking = delta @ basis + (drift @ basis) / spread
    down, up = truncated(lacking * np.sqrt(spread), rank)
    return _branch(basis @ (down / np.sqrt(spread)[:, None]), up)


def plain_branch(delta: Array, rank: int) -> Branch:
    """The branch of `rank` with the least squared error of the weights: the singular value decomposition itself."""
    return _branch(*truncated(delta, rank))


def _branch(down: Array, up: Array) -> Branch:
    return Branch(down.astype(np.float32), up.astype(np.float32))


def truncated(matrix: Array, rank: int) -> tuple[Array, Array]:
    """The best approximation of [out, in] by (down [in, rank] @ up [rank, out])T (Eckart and Young 1936)."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    root = np.sqrt(values[:rank])
    return right[:rank].T * root, root[:, None] * left[:, :rank].T


def remaining(moments: Moments, branch: Branch) -> float:
    """The sum of |r - branch(x)|^2 over the calibration rows."""
    added = branch.matrix
    gained = 2 * float(np.sum(added * moments.lack)) - float(np.sum((added @ moments.inputs) * added))
    return max(moments.energy - gained, 0.0)
