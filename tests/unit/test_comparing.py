"""`engine compare`: conditions against intervals, and what CI systems get to see."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as xml

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import OutputError, RecipeError
from edgewright.types import Device, Measurement, Row, unknown
from edgewright.verbs.announcing import announcer, junit_text, summary_text, verdict
from edgewright.verbs.comparing import Comparison
from edgewright.verbs.judging import FAILED, HELD, UNDECIDED, judge, parse_condition

DEVICE = Device("f", "x86_64", "Xeon", 2, 1, "Linux", "", "", (), {}, (), "", False)
CHANGES = {"latency": (0.012, 0.02), "size": (0.1, 0.1), "accuracy": (-0.02, -0.004)}


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("latency>+1%", FAILED),
        ("latency>+1.5%", UNDECIDED),
        ("latency>+2%", HELD),
        ("latency<-3%", HELD),
        ("latency<+3%", FAILED),
        ("latency < 1.5%", UNDECIDED),
        ("size>+9%", FAILED),
        ("size>+10%", HELD),
        ("accuracy<-0.1%", FAILED),
        ("accuracy<-1%", UNDECIDED),
        ("accuracy<-2%", HELD),
        ("energy>+5%", UNDECIDED),
    ],
)
def test_a_condition_fails_when_the_whole_interval_lies_beyond_it(text: str, outcome: str):
    (judged,) = judge([parse_condition(text)], CHANGES, {"energy": "no meter"})
    assert judged.outcome == outcome
    assert ("no meter" in judged.sentence) == text.startswith("energy")


@given(st.tuples(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9)), st.integers(-90, 90))
@settings(deadline=None, derandomize=True)
def test_opposite_conditions_never_both_fail(ends: tuple[float, float], percent: int):
    change = (min(ends), max(ends))
    above, below = (parse_condition(f"latency{sign}{percent:+d}%").outcome(change) for sign in "><")
    assert (above, below).count(FAILED) < 2
    assert (above == FAILED) == (min(ends) > percent / 100)
    assert (below == FAILED) == (max(ends) < percent / 100)


def test_what_is_no_condition_is_refused_in_a_sentence():
    with pytest.raises(RecipeError, match=r'write "latency>\+3%"'):
        parse_condition("speed")
    with pytest.raises(RecipeError, match="did you mean 'latency'"):
        parse_condition("latenzy>+3%")


def comparison(*conditions: str) -> Comparison:
    energy = unknown("energy", "mJ", "no meter")
    latency = Row(
        "latency p50",
        Measurement("latency", 1.0, "ms"),
        Measurement("latency", 1.016, "ms"),
        Measurement("speed-up", 0.984, "x", 10, (0.98, 0.988)),
    )
    judged = judge([parse_condition(text) for text in conditions], CHANGES, {"energy": "no meter"})
    return Comparison(DEVICE, (latency, Row("energy", energy, energy)), CHANGES, judged)


def test_junit_has_a_case_per_condition():
    text = junit_text(("old", "new"), comparison("latency>+1%", "latency>+1.5%", "size>+20%"))
    (suite,) = xml.fromstring(text)
    assert suite.attrib == {
        "name": "engine compare old new", "tests": "3", "failures": "1", "skipped": "1", "errors": "0",
    }  # fmt: skip
    inside = {case.get("name"): {child.tag for child in case} for case in suite.iter("testcase")}
    assert inside == {
        "latency>+1%": {"failure", "system-out"},
        "latency>+1.5%": {"skipped", "system-out"},
        "size>+20%": {"system-out"},
    }


def test_the_summary_says_what_failed_before_the_table():
    text = summary_text(("old", "new"), comparison("latency>+1%", "energy>+5%"))
    assert text.index("❌ failed: `latency>+1%`") < text.index("| latency p50 | 1 ms | 1.02 ms | +1.2% to +2.0% |")
    assert "undecided: `energy>+5%` (energy is not known: no meter)" in text


def test_undecided_fails_only_when_strict():
    noisy = comparison("latency>+1.5%")
    assert (verdict(noisy, strict=False), verdict(noisy, strict=True)) == (False, True)
    assert verdict(comparison("latency>+1%"), strict=False)


def test_githubs_summary_is_added_to_and_other_files_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = tmp_path / "own.md"
    for path in (tmp_path / "step.md", own):
        path.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    for summary in ("github", str(own)):
        announcer(None, summary, ())(("old", "new"), comparison())
    assert (tmp_path / "step.md").read_text().startswith("before\n### `new` against `old`")
    assert own.read_text().startswith("### `new` against `old`")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    with pytest.raises(RecipeError, match="GITHUB_STEP_SUMMARY, which is not set here; give a file instead"):
        announcer(None, "github", ())
    with pytest.raises(RecipeError, match="give one"):
        announcer("junit.xml", None, ())
    with pytest.raises(OutputError, match="cannot be written"):
        announcer(None, str(tmp_path / "no" / "s.md"), ())(("old", "new"), comparison())


def classifier(path: Path, swapped: bool = False) -> None:
    """Says which of two inputs is the larger one, or the smaller one."""
    weights = "{0, 1, 1, 0}" if swapped else "{1, 0, 0, 1}"
    text = '<ir_version: 8, opset_import: ["" : 17]> net (float[1, 2] x) => (float[1, 2] y)'
    proto = onnx.parser.parse_model(f"{text} <float[2, 2] w = {weights}> {{ y = MatMul(x, w) }}")
    path.write_bytes(proto.SerializeToString())


def test_accuracy_is_judged_on_the_test_split(engine, tmp_path):
    x = np.random.default_rng(0).standard_normal((400, 2)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=x.argmax(1))
    classifier(tmp_path / "right.onnx")
    classifier(tmp_path / "wrong.onnx", swapped=True)
    gate = ("--preset", "quick", "--fail-if", "accuracy<-50%", "--junit", "junit.xml", "--json")
    code, out, err = engine("compare", "right.onnx", "wrong.onnx", "--task", "data.npz", *gate)
    assert code == 3, err
    low, high = json.loads(out)["changes"]["accuracy"]
    assert -1.0 <= low <= high <= -0.95, "all of it is lost"
    assert json.loads(out)["failed"] == ["accuracy<-50%"]
    assert xml.parse(tmp_path / "junit.xml").find(".//failure") is not None
    code, _, err = engine("compare", "right.onnx", "wrong.onnx", "--fail-if", "accuracy<-1%")
    assert (code, "give them with --task" in err) == (2, True)
