"""The story of a quantisation: race the schemes, keep what the task can bear, take the fastest, say why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from edgewright import onnxkit
from edgewright.protocols import Context
from edgewright.types import Model, Step
from edgewright_plugins.qdq.place import Scheme
from edgewright_plugins.qdq.ranges import METHODS
from edgewright_plugins.quantize import Params
from edgewright_plugins.quantize.accuracy import LISTED, Outcome, settle
from edgewright_plugins.quantize.job import Job, Trial, start
from edgewright_plugins.quantize.slow import per_operator
from edgewright_plugins.quantize.speed import by_speed, race
from edgewright_plugins.quantize.widths import narrow


def decide(model: Model, params: Params, context: Context) -> Model:
    """The model in the fastest form that keeps the metric, or as it was when nothing is gained.

    Fewer than 8 bits make a smaller file and run the kernels of int8: the form that is fastest in int8 is narrowed.
    """
    methods = METHODS if params.range == "auto" else (params.range,)
    job = start(model, context, methods=methods, examples=params.examples, group=params.group)
    trials = race(job, params)
    said = [f"speed against the same graph in float: {', '.join(map(str, trials))}"]
    if any(trial.scheme.widths for trial in trials):
        said.append("weights of 7 bits: without VNNI, x86 multiplies those of 8 more slowly")
    for trial in _candidates(job, params, trials):
        outcome = settle(job, trial.scheme, params)
        if outcome is None:
            said.append(f"{trial.scheme} left: within the allowed loss none of it can be int8")
            continue
        final = trial if outcome.scheme == trial.scheme else job.race([outcome.scheme])[0]
        if final.faster or final.ratio is None or params.mode != "auto" or trial.scheme.kind == "weights":
            told = [*said, *_slow_nodes(trial, params)]
            return _quantised(job, params, trials, (narrow(job, outcome, params), final), told)
        said.append(f"{trial.scheme} left: too slow with the layers that accuracy needs in float: {final}")
    return _as_it_was(job, params, trials, said)


def _candidates(job: Job, params: Params, trials: Sequence[Trial]) -> Iterator[Trial]:
    """The forms to settle, the best first; weights of 8 bits follow those of 7 where these were faster.

    With few bits weights alone come last, since they gain size if not time.
    """
    forced = params.mode != "auto"
    yield from by_speed(trials, forced)
    if params.bits == 8 and any(trial.scheme.widths for trial in trials):
        yield from by_speed(job.race([replace(trial.scheme, widths=()) for trial in trials]), forced)
    if params.bits < 8 and params.mode == "auto":
        yield from job.race([Scheme("weights", kept=frozenset(params.keep))])


def _slow_nodes(trial: Trial, params: Params) -> list[str]:
    """The note on nodes that are float because int8 made them slower; none when there are no such nodes."""
    slow = sorted(trial.scheme.kept - set(params.keep))
    more = f" and {len(slow) - LISTED} more" if len(slow) > LISTED else ""
    return [f"left float because int8 is slower: {', '.join(slow[:LISTED])}{more}"] if slow else []


def _quantised(
    job: Job, params: Params, trials: Sequence[Trial], chosen: tuple[Outcome, Trial], said: Sequence[str]
) -> Model:
    """The model in the chosen form; the trial is that of its int8 form."""
    outcome, trial = chosen
    result = job.quantised(outcome.scheme, outcome.method)
    as_int8 = f"{outcome.scheme}, its int8 form: " if outcome.scheme != trial.scheme else ""
    told = [*said, *outcome.notes, f"chosen: {as_int8}{trial}", *_size(job.model, result, outcome.scheme)]
    bits = dict(outcome.scheme.widths)
    details = {
        "scheme": str(outcome.scheme),
        "ranges": outcome.method,
        "kept_float": sorted(outcome.scheme.kept),
        "race": _table(trials),
        "bits": {layer.name: bits.get(layer.name, 8) for layer in job.layers(outcome.scheme)},
        **outcome.details,
    }
    return result.after(_step(params, told, details))


def _size(before: Model, after: Model, scheme: Scheme) -> list[str]:
    """The note on the file's size, where size is what is gained."""
    if not scheme.widths and scheme.kind != "weights":
        return []
    sizes = [onnxkit.read(model.graph).ByteSize() for model in (before, after)]
    return [f"file {sizes[0] / 1e6:.2f} MB -> {sizes[1] / 1e6:.2f} MB"]


def _as_it_was(job: Job, params: Params, trials: Sequence[Trial], said: Sequence[str]) -> Model:
    """The model unchanged, with the operators that int8 made slower."""
    best = max(trials, key=lambda trial: trial.ratio or 0.0)
    lost = per_operator(job.slower(best.scheme))
    slower = ", ".join(f"{name} +{microseconds:.0f} us" for name, microseconds in lost.items())
    why = f"; slower in {best.scheme}: {slower}" if slower else ""
    gained = "is faster than float and keeps the metric" if params.bits == 8 else "keeps the metric"
    notes = [*said, f"nothing gained: no int8 form {gained}{why}"]
    details = {"scheme": None, "race": _table(trials), "slower_us": lost}
    return job.model.after(replace(_step(params, notes, details), declined=True))


def _step(params: Params, notes: Sequence[str], details: Mapping[str, Any]) -> Step:
    return Step("quantize", "edgewright", asdict(params), tuple(notes), details)


def _table(trials: Sequence[Trial]) -> list[Any]:
    return [
        {
            "scheme": str(trial.scheme),
            "kept_float": sorted(trial.scheme.kept),
            "ratio": trial.ratio,
            "interval": list(trial.interval),
        }
        for trial in trials
    ]
