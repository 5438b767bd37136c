"""The contract: what is met, what is not, and what ships."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.asking.bounds import Bounds, Drop, parse_bounds
from edgewright.deploying.contract import decide, judge, rank
from edgewright.errors import RecipeError
from edgewright.types import Evidence, Measurement, Metric, unknown

TOP1 = Metric("top-1", "%", "higher", 100.0)


def evidence(name, *, speed=1.0, width=0.01, accuracy=90.0, drop=0.0, size=1000.0, latency=1.0) -> Evidence:
    p50 = Measurement("latency", latency, "ms", 100, (latency * 0.99, latency * 1.01), "p50")
    return Evidence(
        name=name,
        latency={"p50": p50},
        speedup=Measurement("ratio", speed, "x", 10, (speed - width, speed + width)),
        energy=unknown("energy", "mJ", "no meter"),
        size=Measurement("size", size, "B", 1),
        metric=Measurement("top-1", accuracy, "%", 100),
        drop=Measurement("drop", drop, "%", 100, (drop - 1, drop + 1)),
    )


ORIGINAL = evidence("original", accuracy=90.0)


@pytest.mark.parametrize(
    ("given_bounds", "expected"),
    [
        ({"max_drop": "1%"}, {"max_drop": Drop(0.01)}),
        ({"max_drop": "2.5%rel"}, {"max_drop": Drop(0.025, relative=True)}),
        ({"max_drop": "off"}, {"max_drop": None}),
        ({"max_latency": "10ms:p99"}, {"max_latency": 10.0, "latency_statistic": "p99"}),
        ({"max_latency": "200us"}, {"max_latency": 0.2}),
        ({"max_energy": "2J"}, {"max_energy": 2000.0}),
        ({"max_size": "4MB"}, {"max_size": 4e6}),
        ({"min_speedup": "1.5x"}, {"min_speedup": 1.5}),
    ],
)
def test_bounds_are_read_with_their_units(given_bounds, expected):
    bounds = parse_bounds(given_bounds)
    for name, value in expected.items():
        found = getattr(bounds, name)
        assert found == (pytest.approx(value) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("max_drop", "1"),
        ("max_drop", "-1%"),
        ("max_drop", "101%"),
        ("max_latency", "10"),
        ("max_latency", "10 parsecs"),
        ("max_latency", "10ms:p42"),
        ("max_latency", "0ms"),
        ("max_size", "big"),
        ("min_speedup", "fast"),
        ("min_speedup", "-1"),
        ("min_speedup", "nan"),
        ("minimise", "beauty"),
    ],
)
def test_a_bound_that_makes_no_sense_is_refused_with_an_example(name, text):
    with pytest.raises(RecipeError, match="--"):
        parse_bounds({name: text})


@given(st.sampled_from(["max_drop", "min_speedup", "max_latency", "max_energy", "max_size", "minimise"]), st.text())
def test_any_text_is_a_bound_or_a_sentence(name, text):
    try:
        assert isinstance(parse_bounds({name: text}), Bounds)
    except RecipeError as error:
        assert "--" in str(error)


def test_the_fastest_legal_candidate_ships():
    ranked = [evidence("a", speed=1.5, drop=0.2), evidence("b", speed=2.0, drop=0.5)]
    verdict = decide(ORIGINAL, ranked, Bounds(), TOP1)
    assert (verdict.shipped, verdict.status, verdict.test_reads) == ("b", "met", 3)


def test_a_candidate_that_loses_too_much_on_test_is_passed_over_with_its_reason():
    ranked = [evidence("fast", speed=3.0, accuracy=80.0, drop=10.0), evidence("slow", speed=1.2)]
    verdict = decide(ORIGINAL, ranked, Bounds(), TOP1)
    assert verdict.shipped == "slow"
    assert "dropped by 10.00" in verdict.left_out[0]


def test_the_original_ships_when_nothing_is_legal_and_a_written_bound_is_then_not_met():
    slower = evidence("slower", speed=0.5)
    assert decide(ORIGINAL, [slower], Bounds(), TOP1).shipped == "original"
    assert decide(ORIGINAL, [slower], Bounds(), TOP1).status == "met"
    written = parse_bounds({"min_speedup": "1.2"})
    assert decide(ORIGINAL, [slower], written, TOP1).status == "not met"


def test_the_unwritten_guard_fails_only_when_the_whole_interval_is_below_one():
    doubtful = evidence("doubtful", speed=0.99, width=0.02)
    assert decide(ORIGINAL, [doubtful], Bounds(), TOP1).shipped == "doubtful"
    written = parse_bounds({"min_speedup": "1.0"})
    assert decide(ORIGINAL, [doubtful], written, TOP1).shipped == "original"


def test_a_written_bound_holds_at_the_bad_end_of_the_interval():
    near = evidence("near", speed=1.21, width=0.02)
    (speedup,) = [j for j in judge(near, parse_bounds({"min_speedup": "1.2"}), TOP1) if j.bound == "min-speedup"]
    assert speedup.holds is False


def test_a_written_bound_that_cannot_be_judged_counts_as_not_met():
    bounds = parse_bounds({"max_energy": "5mJ"})
    verdict = decide(ORIGINAL, [evidence("a", speed=2.0)], bounds, TOP1)
    assert verdict.status == "not met"
    assert any("no meter" in j.sentence for j in verdict.judgements)


def test_a_percentile_that_was_not_measured_is_not_judged():
    bounds = parse_bounds({"max_latency": "10ms:p99"})
    (found,) = [j for j in judge(evidence("a"), bounds, TOP1) if j.bound == "max-latency"]
    assert found.holds is None


def test_a_relative_drop_is_a_share_of_the_originals_value():
    lossy = evidence("lossy", accuracy=49.4, drop=0.6)
    relative, absolute = parse_bounds({"max_drop": "1%rel"}), parse_bounds({"max_drop": "1%"})
    assert judge(lossy, relative, TOP1)[0].holds is False
    assert judge(lossy, absolute, TOP1)[0].holds is True


def test_for_a_metric_that_should_be_low_the_original_value_is_below():
    error = Metric("error", "", "lower", 1.0)
    worse = evidence("worse", accuracy=0.105, drop=0.005)
    assert judge(worse, parse_bounds({"max_drop": "10%rel"}), error)[0].holds is True
    assert judge(worse, parse_bounds({"max_drop": "4%rel"}), error)[0].holds is False


def test_predicted_evidence_says_so_in_the_first_word():
    predicted = Measurement("ratio", 2.0, "x", interval=(1.5, 2.5), kind="predicted")
    candidate = Evidence(**{**vars(evidence("a")), "speedup": predicted})
    assert decide(ORIGINAL, [candidate], Bounds(), TOP1).status == "predicted met"


def test_at_most_five_are_frozen_and_lossy_ones_come_last():
    many = [evidence(f"c{i}", speed=1 + i / 10) for i in range(7)] + [evidence("lossy", speed=9, drop=20.0)]
    ranked = rank(many, Bounds(), TOP1)
    assert [e.name for e in ranked] == ["c6", "c5", "c4", "c3", "c2"]


def test_size_can_be_what_counts():
    ranked = [evidence("fast", speed=3.0, size=900.0), evidence("small", speed=1.1, size=100.0)]
    assert decide(ORIGINAL, ranked, parse_bounds({"minimise": "size"}), TOP1).shipped == "small"
