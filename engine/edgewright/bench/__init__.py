"""What every step of one run shares: outputs and scores, costs, plans and trial bundles; measured once, and kept."""

from edgewright.bench.answers import CHUNK, holding
from edgewright.bench.bench import Bench
from edgewright.bench.placing import stage_artifacts

__all__ = [
    "Bench",
    "CHUNK",
    "holding",
    "stage_artifacts",
]
