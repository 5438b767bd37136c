"""The metric of two bundles on one task, computed where they run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgewright.agents.agent import Agent
from edgewright.asking.request import Request
from edgewright.bench import CHUNK, holding
from edgewright.bench.answers import EXITS, inferred
from edgewright.deploying.evidence import drop_of, metric_of
from edgewright.environment import Environment
from edgewright.realinputs import open_task, rows_of_run
from edgewright.reporting.report import signed_drop
from edgewright.task import Task
from edgewright.types import Arrays, Row
from edgewright.verbs.subject import Subject

ACCURACY = "accuracy"


def score(agent: Agent, subjects: Sequence[Subject], request: Request, env: Environment) -> tuple[Row, ...]:
    """A row with the metric of both on the test split (on selection where there is none); none without a task.

    Without labels it is how far the second agrees with the first. Raises: TaskError.
    """
    if request.task is None:
        return ()
    task = open_task(subjects[0].bundle, request.task, request.seed).checked(subjects[1].bundle.signature)
    split = "test" if task.size("test") else "selection"
    first, second = (_outputs(agent, subject, task, split, env) for subject in subjects)
    labels = task.labels(split) if task.labelled else first
    drop = drop_of(task, split, (first, second), labels, task.seed)
    old, new = (metric_of(task, split, outputs, labels) for outputs in (first, second))
    return (Row(f"{ACCURACY} ({task.metric.name})", old, new, signed_drop(drop)),)


def _outputs(agent: Agent, subject: Subject, task: Task, split: str, env: Environment) -> Arrays:
    """The outputs over the split, joined on the example axis."""

    def chunks() -> Iterator[Arrays]:
        for number, batch in enumerate(task.batches(split, CHUNK)):
            env.progress(f"outputs of {subject.name} on {split}", number * CHUNK, task.size(split))
            yield batch.inputs

    with holding(agent, subject.bundle.path, subject.runtimes) as opened:
        found = inferred(agent, opened, chunks(), rows_of_run(subject.bundle.signature))
    return {name: array for name, array in found.items() if name != EXITS}
