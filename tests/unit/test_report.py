"""Reports: methods written as a user would, and a loss of nothing printed as nothing."""

from __future__ import annotations

from dataclasses import dataclass

from edgewright.asking.request import parse_method
from edgewright.reporting.report import call_text, rows
from edgewright.types import Evidence, Measurement, unknown


@dataclass(frozen=True)
class Params:
    ratio: float
    mode: str = "auto"
    keep: tuple[str, ...] = ()


def test_a_call_shows_what_is_not_default_and_can_be_read_back():
    text = call_text("prune", Params(0.5, keep=("a", "b")))
    assert text == "prune:ratio=0.5,keep=a+b"
    assert parse_method(text).params == {"ratio": "0.5", "keep": "a+b"}


def test_no_loss_is_no_negative_zero():
    latency = {"p50": Measurement("latency", 1.0, "ms")}
    same = Evidence(
        "a",
        latency=latency,
        speedup=Measurement("speed-up", 1.0, "x"),
        energy=unknown("energy", "mJ", "no meter"),
        size=Measurement("size", 10, "B"),
        metric=Measurement("top-1", 90.0, "%"),
        drop=Measurement("drop", 0.0, "%", 5, (0.0, 0.4)),
    )
    (change,) = [row.ratio for row in rows(same, same) if row.quantity == "top-1"]
    assert change is not None
    assert str(change.value) == "0.0"
    assert change.interval == (-0.4, 0.0)
