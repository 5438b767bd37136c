"""The renderers `json` and `markdown`: golden files, and the figures in them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.bundle import plain
from edgewright.types import Entrant, Exit, Exits, Judgement, Measurement, Report, Row, Step, Verdict, unknown
from edgewright_exporters.figures import figure, fitting_scale, ratio
from edgewright_exporters.report_json import JSON
from edgewright_exporters.report_markdown import MARKDOWN
from edgewright_exporters.table import table

GOLDEN = Path(__file__).parent.parent / "golden"

SPEEDUP = Measurement("ratio", 2.4355, "x", 20, (2.3104, 2.5612), "paired")
ROWS = (
    Row(
        "latency p50",
        Measurement("latency", 1.0213, "ms", 300, (1.01, 1.03), "p50", "monotonic clock"),
        Measurement("latency", 0.4193, "ms", 310, (0.41, 0.43), "p50", "monotonic clock", unstable=True),
        SPEEDUP,
    ),
    Row(
        "top-1 accuracy",
        Measurement("top-1 accuracy", 98.148, "%", 324),
        Measurement("top-1 accuracy", 97.84, "%", 324),
        Measurement("change", -0.308, "%", 324, (-1.2, 0.6), "paired"),
    ),
    Row(
        "size",
        Measurement("size", 337296, "B", 1),
        Measurement("size", 95100, "B", 1),
        Measurement("ratio", 3.5467, "x", 1),
    ),
    Row(
        "energy",
        unknown("energy", "mJ", "no energy meter was found on cpu"),
        unknown("energy", "mJ", "no energy meter was found on cpu"),
    ),
    Row(
        "peak memory",
        Measurement("peak memory", 61.2e6, "B", 1, (50e6, 70e6), kind="predicted"),
        unknown("peak memory", "B", "the worker was gone before it could be read"),
    ),
)
REPORT = Report(
    model="digits",
    target="cpu",
    device="Xeon, 2 cores, Linux",
    rows=ROWS,
    verdict=Verdict(
        "met",
        "simplify+quantize",
        (
            Judgement("max-drop", True, True, "top-1 accuracy dropped by 0.31 [-0.60, 1.20] %, allowed 1.00"),
            Judgement("min-speedup", False, True, "speed-up 2.44x [2.31, 2.56], asked 1x"),
            Judgement("max-energy", True, None, "energy cannot be judged: no energy meter was found on cpu"),
        ),
        test_reads=3,
        left_out=("simplify: speed-up 0.98x [0.97, 0.99], asked 1x",),
    ),
    steps=(
        Step("simplify", "edgewright 0.1.0", {}, ("73 nodes before, 54 after", "opset 13 raised to 17")),
        Step("quantize", "edgewright 0.1.0", {"mode": "auto", "keep": ["head"]}, ("static u8 is 2.4x",)),
    ),
    candidates=(
        {
            "name": "original",
            "size": 337296,
            "speedup": plain(Measurement("ratio", 1.0, "x")),
            "metric": None,
            "numerics": {"main": {"max_abs": 0.0, "max_rel": 0.0, "n": 16}},
            "placements": [],
        },
        {
            "name": "simplify+quantize",
            "size": 95100,
            "speedup": plain(SPEEDUP),
            "metric": plain(ROWS[1].candidate),
            "numerics": {"main": {"max_abs": 0.31, "max_rel": 0.0234, "n": 16}},
            "placements": [],
        },
    ),
    skipped=("half: the target has no 16-bit arithmetic",),
    settings={"model": "digits.onnx", "threads": 1, "seed": 0},
    bundle="digits-cpu",
    notes=("split by seed 0: calibration 81, selection 135, test 324",),
    race=(
        Entrant("original", "onnx", "ort CPU graph=all", Measurement("ratio", 1.0, "x")),
        Entrant("simplify+quantize", "onnx", "ort CPU graph=extended", SPEEDUP, won=True),
        Entrant("simplify+quantize", "kernels", "", None, reason="TVM is not installed"),
    ),
)


@pytest.mark.parametrize(("renderer", "name"), [(MARKDOWN, "report.md"), (JSON, "report.json")])
def test_golden(renderer, name: str):
    assert renderer.render(REPORT) == (GOLDEN / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------ json


def test_json_is_versioned_and_loses_nothing():
    document = json.loads(JSON.render(REPORT))
    assert document["schema"] == 1
    assert document["verdict"]["shipped"] == "simplify+quantize"
    assert document["rows"][0]["ratio"] == {**plain(SPEEDUP)}
    assert document["rows"][3]["original"]["value"] is None
    assert document["rows"][3]["original"]["reason"] == "no energy meter was found on cpu"


def test_json_has_neither_infinity_nor_nan():
    row = Row("latency", Measurement("latency", math.inf, "ms"), Measurement("latency", math.nan, "ms"))
    document = json.loads(JSON.render(replace(REPORT, rows=(row,))), parse_constant=pytest.fail)
    assert document["rows"][0]["original"]["value"] is None


# ------------------------------------------------------------------ markdown


def test_verdict_is_said_first_and_in_its_own_words():
    verdict = replace(REPORT.verdict, status="predicted not met", shipped="original")
    lines = MARKDOWN.render(replace(REPORT, verdict=verdict)).splitlines()
    assert lines[2].startswith("Predicted not met: `original` ships")


def test_missing_values_share_one_footnote():
    text = MARKDOWN.render(REPORT)
    assert text.count("[1] no energy meter was found on cpu") == 1
    assert text.count("- [1]") == 2
    assert "[2] the worker was gone before it could be read" in text


def test_empty_sections_are_left_out():
    bare = replace(
        REPORT,
        steps=(),
        candidates=(),
        skipped=(),
        settings={},
        notes=(),
        race=(),
        verdict=Verdict("met", "original", (), 1),
    )
    assert "##" not in MARKDOWN.render(bare)


def test_exits_have_a_table_of_their_own():
    exits = Exits("test", "top-1 %", (Exit("e1", 0.83, 0.75, 200, 97.0, 88.0, 1.0, 1.25),), (), notes=("two exits",))
    text = MARKDOWN.render(replace(REPORT, exits=exits))
    section = text[text.index("## Exits") : text.index("## Contract")]
    cells = [cell.strip() for cell in section.splitlines()[4].strip("|").split("|")]
    assert cells == ["e1", "0.83", "75.0%", "200", "97.00", "88.00", "1 ms", "1.25 ms"]
    assert "- two exits" in section


def test_markdown_columns_line_up():
    text = MARKDOWN.render(REPORT)
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        bars = [[i for i, c in enumerate(line) if c == "|"] for line in lines]
        assert all(each == bars[0] for each in bars)


@given(st.lists(st.lists(st.text("ab|µ ", max_size=8), min_size=2, max_size=2), max_size=5))
def test_any_cell_keeps_the_table_rectangular(rows: list[list[str]]):
    lines = table(("name", "value"), rows)
    assert len(lines) == len(rows) + 2
    assert len({len(line) for line in lines}) == 1


# ------------------------------------------------------------------ figures


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.0421, "ms", "42.1 µs"),
        (0.612, "ms", "612 µs"),
        (12.345, "ms", "12.3 ms"),
        (2500.0, "ms", "2.50 s"),
        (0.0000021, "ms", "2.10 ns"),
        (1234.0, "mJ", "1.23 J"),
        (512, "B", "512 B"),
        (337296, "B", "337 kB"),
        (3423940, "B", "3.42 MB"),
        (98.148, "%", "98.15 %"),
        (0.731, "", "0.731"),
        (0.0, "ms", "0 ms"),
    ],
)
def test_value_is_written_in_a_fitting_unit(value: float, unit: str, words: str):
    assert figure(Measurement("q", value, unit), fitting_scale(unit, value)) == words


@pytest.mark.parametrize(
    ("measurement", "words"),
    [
        (None, "-"),
        (Measurement("ratio", None, "x"), "-"),
        (SPEEDUP, "2.44x [2.31, 2.56]"),
        (Measurement("latency ratio", 1.5, ""), "1.50x"),
        (Measurement("ratio", 1.5, "x", kind="predicted", interval=(0.5, 4)), "1.50x [0.50, 4.00] (predicted)"),
        (Measurement("change", 0.25, "%"), "+0.25 %"),
        (Measurement("change", -0.0, "%"), "0.00 %"),
    ],
)
def test_ratio_is_a_factor_or_a_change(measurement: Measurement | None, words: str):
    assert ratio(measurement) == words


@given(st.floats(1e-9, 1e12))
def test_three_digits_are_never_lost(value: float):
    written, unit = figure(Measurement("q", value, "ms"), scale := fitting_scale("ms", value)).split()
    assert unit == scale.unit
    assert float(written) * scale.size == pytest.approx(value, rel=6e-3, abs=1e-12)
