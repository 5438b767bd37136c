"""The user's data and judgement: what goes in, how the answer is scored, and who may look at which part."""

from edgewright.task.examples import Examples
from edgewright.task.metrics import AGREEMENT, TOP1, agreement, top1
from edgewright.task.noise import noise_for, noise_task
from edgewright.task.sources import load_task
from edgewright.task.task import Batch, Score, Task, split_indices

__all__ = [
    "AGREEMENT",
    "Batch",
    "Examples",
    "Score",
    "TOP1",
    "Task",
    "agreement",
    "load_task",
    "noise_for",
    "noise_task",
    "split_indices",
    "top1",
]
