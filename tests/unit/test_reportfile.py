"""Reports read back: nothing is lost, and what is no report is refused in one sentence that says where."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.errors import BundleError
from edgewright.reporting.reportfile import parse_report, read_report
from edgewright.types import Exit, Exits, Judgement, Measurement, Report, Row, Step, Tradeoff, Verdict
from edgewright_exporters.report_json import JSON

TEXT = st.text(max_size=6)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
MAYBE = st.none() | NUMBER
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(TEXT, JSON_VALUES, max_size=2)


def some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, max_size=2).map(tuple)


MEASUREMENTS = st.builds(
    Measurement, TEXT, MAYBE, TEXT, st.integers(), st.none() | st.tuples(NUMBER, NUMBER), TEXT, TEXT, MAYBE, TEXT, TEXT,
    st.booleans(), OBJECTS,
)  # fmt: skip
EXITS = st.builds(
    Exits,
    TEXT,
    TEXT,
    some(st.builds(Exit, TEXT, MAYBE, NUMBER, st.integers(), MAYBE, MAYBE, MAYBE, MAYBE)),
    some(st.builds(Tradeoff, some(MAYBE), NUMBER, NUMBER, st.booleans())),
    some(st.integers()),
    some(st.integers()),
    some(TEXT),
)
REPORTS = st.builds(
    Report,
    TEXT,
    TEXT,
    TEXT,
    some(st.builds(Row, TEXT, MEASUREMENTS, MEASUREMENTS, st.none() | MEASUREMENTS)),
    st.builds(
        Verdict,
        TEXT,
        TEXT,
        some(st.builds(Judgement, TEXT, st.booleans(), st.none() | st.booleans(), TEXT)),
        st.integers(),
        some(TEXT),
    ),
    some(st.builds(Step, TEXT, TEXT, OBJECTS, some(TEXT), OBJECTS, st.booleans())),
    some(OBJECTS),
    some(TEXT),
    OBJECTS,
    TEXT,
    some(TEXT),
    st.none() | EXITS,
)
PLAIN = Report("net", "cpu", "here", (), Verdict("met", "net", (), 1), (), (), (), {})


@given(REPORTS)
@settings(max_examples=60)
def test_what_was_written_is_read(report: Report):
    assert parse_report(json.loads(JSON.render(report)), "a.json") == report


def test_newer_keys_are_passed_over_and_older_files_have_no_exits():
    document = json.loads(JSON.render(PLAIN))
    del document["exits"]
    assert parse_report({**document, "novel": 1}, "a.json") == PLAIN


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "schema 2; this version reads kind 'report' of schema 1"),
        ({"kind": "plan"}, "is kind 'plan'"),
        ({"model": 3}, "report.model is 3, expected a str"),
        ({"rows": {}}, "report.rows is {}, expected a list"),
        ({"rows": [{"quantity": "size"}]}, "report.rows[0] lacks original, candidate"),
        ({"verdict": None}, "report.verdict is null, expected a dict"),
        ({"steps": [{"name": "a", "plugin": "b", "declined": 1}]}, "report.steps[0].declined is 1, expected a bool"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(change: dict[str, Any], words: str):
    document = {**json.loads(JSON.render(PLAIN)), **change}
    with pytest.raises(BundleError) as caught:
        parse_report(document, "a.json")
    assert words in str(caught.value)
    assert str(caught.value).startswith("a.json")


def test_an_interval_has_two_ends():
    row = Row("size", Measurement("size", 1.0, "B", interval=(1.0, 2.0)), Measurement("size", 1.0, "B"))
    document = json.loads(JSON.render(replace(PLAIN, rows=(row,))))
    document["rows"][0]["original"]["interval"].append(3.0)
    with pytest.raises(BundleError, match=r"interval has 3 items, expected 2"):
        parse_report(document, "a.json")


@pytest.mark.parametrize(("text", "words"), [("{", "cannot be read as a report"), ("[1]", "is kind None")])
def test_a_file_that_is_no_report(tmp_path: Path, text: str, words: str):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(BundleError, match=words):
        read_report(path)


def test_a_bundle_without_a_report_says_what_to_do(tmp_path: Path):
    with pytest.raises(BundleError, match="deploy again"):
        read_report(tmp_path / "report.json")
