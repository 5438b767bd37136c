"""The exit rule: which rows of a stage leave. The host's tools, the runtime and the exported graphs decide by it alike.

Part of the device set: Python 3.9 and numpy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from edgewright.types import Array

if TYPE_CHECKING:
    import numpy.typing as npt

RULES = ("max-probability", "entropy", "patience")


def leaves(scores: Array, threshold: Optional[float]) -> npt.NDArray[np.bool_]:
    """Which rows leave: score >= threshold, compared in float32; NaN goes on, and without a threshold all do."""
    if threshold is None:
        return np.zeros(len(scores), np.bool_)
    taken: Any = np.asarray(scores, np.float32) >= np.float32(threshold)
    return taken


def depth_of(scores: Array, thresholds: Any) -> npt.NDArray[np.intp]:
    """The stage at which each row leaves. `scores` [gated stages, rows]; the last stage keeps whoever gets there."""
    left = np.stack([leaves(each, threshold) for each, threshold in zip(scores, thresholds)])
    return np.where(left.any(0), left.argmax(0), len(left))
