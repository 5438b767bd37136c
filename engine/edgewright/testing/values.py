"""Checks of what plugins state about devices, what they predict, and what they write."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from edgewright.asking.request import parse_method
from edgewright.errors import PluginError, RefusedError
from edgewright.protocols import HostMeter, Meter, Predictor, Renderer
from edgewright.registry import PREDICTORS, RUNTIMES, TRANSFORMS
from edgewright.testing import samples
from edgewright.testing.rig import Rig
from edgewright.testing.verdicts import attempt, require, require_sentence, require_type
from edgewright.types import Figure, Measurement, Offer, Refusal, Source, Target

T = TypeVar("T")


def figures_have_sources(offer: Offer[Target], rig: Rig) -> None:
    """Every figure is a positive number with a unit and a source."""
    for name, figure in _figures(offer.value):
        require(
            math.isfinite(figure.value) and figure.value > 0, "state", f"{name} is {figure.value}; it must be positive"
        )
        require(bool(figure.unit.strip()), "state", f"{name} has no unit")
        require(len(figure.source.split()) >= 2, "state", f"{name} has no source; name the document it is from")


def names_what_exists(offer: Offer[Target], rig: Rig) -> None:
    """Its predictor, runtimes and default methods can be found."""
    target, registry = offer.value, rig.registry
    attempt("state", lambda: registry.get(PREDICTORS, target.predictor))
    for runtime in target.runtimes:
        attempt("state", lambda r=runtime: registry.get(RUNTIMES, r))
    for method in target.recipe:
        attempt("state", lambda m=method: registry.get(TRANSFORMS, parse_method(m).name))


def can_be_predicted(offer: Offer[Target], rig: Rig) -> None:
    """The predictor it names tells the latency of every sample on it."""
    target = offer.value
    predictor = rig.registry.get(PREDICTORS, target.predictor).value
    for model in rig.models("onnx").values():
        found = attempt("predict", lambda m=model: predictor.predict(m, target, "latency"))
        _check_prediction(found, "latency")


def predicts(offer: Offer[Predictor], rig: Rig) -> None:
    """Latency and energy as measurements of kind `predicted`: a value in its interval, or none and the reason."""
    for model in rig.models("onnx").values():
        for quantity in ("latency", "energy"):
            found = attempt("predict", lambda m=model, q=quantity: offer.value.predict(m, rig.target, q))
            _check_prediction(found, quantity)
        ratio = attempt("predict", lambda m=model: offer.value.predict_ratio(m, m, rig.target, "latency"))
        require(ratio.value is None or math.isclose(ratio.value, 1.0), "mismatch", "a model beside itself is not 1.0")


def states_sources(offer: Offer[Meter], rig: Rig) -> None:
    """What it reads, each with a unit and a scope, in a form that a runner without Python can read."""
    meter = offer.value
    for source in attempt("sources", lambda: meter.sources(rig.device)):
        require_type(source, Source, "sources")
        require(source.kind in ("counter", "power"), "sources", f"{source.rail} is of kind {source.kind!r}")
        require(bool(source.rail and source.unit and source.scope), "sources", f"{source} lacks rail, unit or scope")
        require(
            source.scale > 0 and source.period_ns > 0, "sources", f"{source.rail} needs a scale and a period above 0"
        )
        stated = bool(source.folder or source.argv) and bool(source.values)
        require(stated or meter.needs_python, "sources", f"{source.rail} names neither files nor a command to read")


def reads_or_says_why_not(offer: Offer[Meter], rig: Rig) -> Refusal | None:
    """What needs Python or this host opens its instrument and reads it, or says in a sentence why it cannot."""
    meter: Any = offer.value
    if isinstance(meter, HostMeter):
        return _opens(meter.start, lambda recorder: recorder.stop())
    if not meter.needs_python:
        return Refusal("the agent reads its sources by itself")
    count = len(meter.sources(rig.device))

    def read(sampler: Any) -> None:
        found = attempt("read", sampler.read)
        require(len(found) == count, "read", f"it gives {len(found)} readings for {count} sources")

    return _opens(meter.open, read)


def _opens(start: Callable[[], T], use: Callable[[T], object]) -> Refusal | None:
    try:
        opened = start()
    except RefusedError as error:
        return require_sentence(Refusal(str(error)), "open")
    except Exception as cause:
        raise PluginError(f"open: {type(cause).__name__}: {cause}; raise RefusedError with the reason") from cause
    use(opened)
    return None


def renders(offer: Offer[Renderer], rig: Rig) -> None:
    """The same text twice, which names the model and says why a value is missing."""
    renderer, report = offer.value, samples.report()
    require(renderer.suffix.startswith("."), "state", f"suffix {renderer.suffix!r} must begin with a dot")
    first, second = (attempt("render", lambda: renderer.render(report)) for _ in range(2))
    require_type(first, str, "render")
    require(first == second, "render", "the same report gives another text the second time")
    for word in (report.model, report.rows[1].original.reason, report.skipped[0]):
        require(word in first, "render", f"{word!r} is not in the text")
    if renderer.suffix == ".json":
        attempt("render", lambda: json.loads(first))


def _figures(target: Target) -> Iterator[tuple[str, Figure]]:
    yield from (("memory", target.memory), ("bandwidth", target.bandwidth), ("cores", target.cores))
    yield from ((f"compute {name}", figure) for name, figure in target.compute.items())
    yield from ((f"power {name}", figure) for name, figure in target.power.items())


def _check_prediction(found: Measurement, quantity: str) -> None:
    if found.value is None:
        require(bool(found.reason), "predict", f"{quantity} is not known, and it does not say why")
        return
    require(found.kind == "predicted", "predict", f"{quantity} is of kind {found.kind!r}; say 'predicted'")
    require(bool(found.unit), "predict", f"{quantity} has no unit")
    interval = found.interval
    inside = interval is not None and interval[0] <= found.value <= interval[1]
    require(inside, "predict", f"{quantity} {found.value} does not lie in its interval {interval}")
