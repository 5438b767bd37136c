"""What every exit would answer: scores and quality of each example at each exit, with nothing leaving."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewright.bench import Bench
from edgewright.errors import RefusedError
from edgewright.exits.fit import Observed
from edgewright.task.metrics import agreement_each
from edgewright.types import Array, Arrays, Model

FITTED_ON = ("calibration", "selection")
"""The splits that thresholds are fitted on: never the test split."""


def observe(model: Model, bench: Bench) -> Observed:
    """Scores [gated stages, n] and quality [stages, n] over the splits that thresholds are fitted on.

    Raises: RefusedError when the task tells nothing of single examples.
    """
    variant = model.variants[0]
    gates = [stage.gate.score for stage in variant.stages if stage.gate is not None]
    scores: list[Array] = []
    quality: list[Array] = []
    for split in FITTED_ON:
        if bench.task.size(split) == 0:
            continue
        found = bench.explored(model, split)
        scores.append(np.stack([each[name] for name, each in zip(gates, found, strict=False)]))
        answers = [{name: each[name] for name in variant.stages[-1].outputs} for each in found]
        quality.append(qualities(answers, bench, split))
    return Observed(np.concatenate(scores, axis=1), np.concatenate(quality, axis=1))


def qualities(answers: Sequence[Arrays], bench: Bench, split: str) -> Array:
    """How good each answer is to each example, 1.0 being the metric's full scale; higher is better.

    Where the metric is no mean over examples, or there are no labels, agreement with the last answer stands for it.
    """
    task = bench.task
    if task.each is None or task.synthetic or not task.labelled:
        if any(value.ndim != 2 for value in answers[-1].values()):
            raise RefusedError(
                f"thresholds cannot be fitted: the metric of task {task.name!r} tells nothing of single examples; "
                "give the task `each`, a function of (outputs, labels) with one score per example"
            )
        return np.stack([agreement_each(answer, answers[-1]) / 100 for answer in answers])
    better = 1 if task.metric.direction == "higher" else -1
    labels = task.labels(split)
    return np.stack([better * np.asarray(task.each(a, labels), np.float64) / task.metric.full_scale for a in answers])
