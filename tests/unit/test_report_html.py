"""The renderer `html`: structure, escaping, charts against their tables, and several reports on one page."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.types import Exit, Exits, Measurement, Report, Row, Step, Tradeoff, Verdict
from edgewright_exporters.report_html import HTML
from edgewright_exporters.report_html.markup import VOID, element
from edgewright_exporters.report_html.story import command
from edgewright_exporters.report_html.tradeoffs import MOST, thinned
from edgewright_exporters.report_html.verdict import sentence

EVIL = "<script>alert('x')</script>&\"><b>"
ROWS = (
    Row("latency mean", Measurement("latency", 4.0, "ms"), Measurement("latency", 2.0, "ms")),
    Row(
        "latency p50",
        Measurement("latency", 4.0, "ms"),
        Measurement("latency", 1.6, "ms"),
        Measurement("ratio", 2.5, "x", 20, (2.4, 2.6)),
    ),
    Row(
        "top-1 accuracy",
        Measurement("top-1 accuracy", 91.5, "%", 200),
        Measurement("top-1 accuracy", 91.0, "%", 200),
        Measurement("change", -0.5, "%", 200, (-1.0, 0.0), "paired"),
    ),
    Row("energy", Measurement("energy", None, "mJ", reason="no meter"), Measurement("energy", None, "mJ")),
)
EXITS = Exits(
    "test",
    "top-1 accuracy %",
    (
        Exit("first", 0.83, 0.75, 200, 97.0, 88.0, 1.0, 1.25),
        Exit("last", None, 0.25, 200, 73.0, 92.0, 5.0, 5.5),
    ),
    tuple(Tradeoff((0.95 - 0.05 * i,), 5.0 - i, 92.0 - i, i == 2) for i in range(4)),
    early=(3, 4),
    late=(17,),
    notes=("two exits",),
)
REPORT = Report(
    "net",
    "cpu",
    "this host",
    ROWS,
    Verdict("met", "early-exit", (), 2, ("simplify: slower",)),
    (Step("early-exit", "edgewright 0.1.0", {"rule": "entropy"}, ("2 exits",)),),
    (),
    ("half: no fp16",),
    {"model": "my net.onnx", "target": "cpu", "methods": "simplify early-exit:exits=2", "seed": 1},
    exits=EXITS,
)


class Outline(HTMLParser):
    """What a page is made of; unbalanced tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.headings: list[int] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def values(self, key: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == key]


def evil_report() -> Report:
    exits = replace(EXITS, split=EVIL, metric=EVIL, exits=(replace(EXITS.exits[0], stage=EVIL),), notes=(EVIL,))
    row = Row(EVIL, Measurement(EVIL, None, EVIL, reason=EVIL), Measurement(EVIL, 1.0, EVIL, kind=EVIL))
    return Report(
        EVIL,
        EVIL,
        EVIL,
        (row,),
        Verdict(EVIL, EVIL, (), 1, (EVIL,)),
        (Step(EVIL, EVIL, {EVIL: EVIL}, (EVIL,)),),
        ({"name": EVIL, "size": 1, "numerics": {}},),
        (EVIL,),
        {"model": EVIL, "target": EVIL, EVIL: EVIL},
        EVIL,
        (EVIL,),
        exits,
    )


@pytest.mark.parametrize("reports", [(REPORT,), (REPORT, REPORT), (replace(REPORT, exits=None),), (evil_report(),) * 2])
def test_page_is_whole(reports):
    page = HTML.render_page(reports, ({},) * len(reports))
    found = Outline(page)
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    assert {ref for value in found.values("aria-labelledby") for ref in value.split()} <= set(ids)
    assert {value[1:] for tag, key, value in found.attributes if (tag, key) == ("a", "href")} <= set(ids)
    assert found.headings[0] == 1
    assert found.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(found.headings, found.headings[1:]))
    assert len(page) < 600_000, "most of it is the library that draws"


def test_nothing_is_fetched_and_only_our_scripts_run():
    text = HTML.render_page((REPORT,), ({3: b"png"},))
    found = Outline(text)
    assert found.tags["link"] == 0
    (policy,) = (value for value in found.values("content") if "default-src 'none'" in value)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    allowed = {f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts}
    assert set(policy.split("script-src ")[1].split()) == allowed
    assert len(scripts) == 2
    assert all("</script" not in each and "<!--" not in each for each in scripts)
    assert found.values("src") == ["data:image/png;base64,cG5n"]
    assert not [key for _, key, _ in found.attributes if key.startswith("on")]


def test_the_library_is_the_one_that_was_published_and_its_licences_are_in_the_page():
    folder = files("edgewright_exporters.report_html").joinpath("vendor")
    told = folder.joinpath("README.md").read_text(encoding="utf-8")
    for name in ("d3.min.js", "plot.umd.min.js"):
        assert hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() in told
    page = HTML.render(REPORT)
    assert "==== d3-ease" in page
    assert "Copyright 2020-2025 Observable, Inc." in page


def test_no_name_becomes_markup():
    plain, evil = Outline(HTML.render(replace(evil_report(), model="m"))), Outline(HTML.render(evil_report()))
    assert evil.tags["b"] == 0
    assert evil.tags == plain.tags
    assert EVIL in evil.text


@given(st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=60)
def test_text_and_attributes_survive_the_parser(text: str, value: str):
    text, value = (re.sub("[\x00\r\ud800-\udfff]", "", each) for each in (text, value))
    found = Outline(element("p", text, title=value).text)
    assert "".join(found.words) == text
    assert found.values("title") == [value]


# ------------------------------------------------------------------ what it says


def test_verdict_comes_first_in_words():
    assert sentence(REPORT) == "Met: early-exit ships: 2.50x faster, top-1 accuracy -0.50 %."
    words = Outline(HTML.render(REPORT)).text
    assert words.index("Met: early-exit ships") < words.index("Before and after")


@pytest.mark.parametrize(
    ("status", "mark"), [("met", "✓"), ("not met", "✗"), ("predicted met", "≈"), ("predicted not met", "≈")]
)
def test_verdict_is_told_by_more_than_colour(status: str, mark: str):
    page = HTML.render(replace(REPORT, verdict=replace(REPORT.verdict, status=status)))
    assert f"{mark}</span>{status.capitalize()}: " in page


def test_slower_is_called_slower():
    row = replace(ROWS[1], ratio=Measurement("ratio", 0.5, "x", kind="predicted"))
    assert sentence(replace(REPORT, rows=(row,))) == "Met: early-exit ships: 2.00x slower (predicted)."


def charts(text: str) -> dict[str, dict[str, Any]]:
    """What each chart of a page is drawn from, by its kind."""
    found = re.findall(r'data-kind="(\w+)">.*?<script type="application/json">(.*?)</script>', text, re.DOTALL)
    return {kind: json.loads(data) for kind, data in found}


def test_charts_say_what_they_show_and_have_their_numbers_below():
    found = Outline(HTML.render(REPORT))
    told = " ".join(found.values("aria-label"))
    assert "4 choices of thresholds. Chosen: 3 ms at 90.00 top-1 accuracy %. The original: 4 ms at 91.50." in told
    assert "first 75.0%, last 25.0%" in told
    for cell in ("0.85 (chosen)", "3 ms", "97.00", "88.00", "5.5 ms", "200"):
        assert cell in found.words


def test_charts_are_drawn_from_the_reports_own_values():
    found = charts(HTML.render(REPORT))
    assert [each["share"] for each in found["exits"]["bars"]] == [0.75, 0.25]
    assert [each["ms"] for each in found["tradeoffs"]["points"] if each["chosen"]] == [3.0]
    assert found["tradeoffs"]["original"] == {"cost": 4.0, "metric": 91.5}
    assert charts(HTML.render(evil_report()))["exits"]["bars"][0]["exit"] == EVIL


def test_without_latency_there_is_no_reference_point():
    assert charts(HTML.render(replace(REPORT, rows=ROWS[2:])))["tradeoffs"]["original"] is None


def test_many_choices_are_thinned_and_the_chosen_one_stays():
    many = tuple(Tradeoff((i / 1000,), 1 + i / 1000, 90.0, i == 501) for i in range(1000))
    kept = thinned(many)
    assert len(kept) <= MOST + 1
    assert [each for each in kept if each.chosen] == [many[501]]


def test_examples_are_ids_unless_pictures_are_given():
    assert "Left first: examples 3, 4" in Outline(HTML.render(REPORT)).text
    found = Outline(HTML.render_page((REPORT,), ({3: b"a", 4: b"b", 17: b"c"},)))
    assert found.values("alt") == ["example 3", "example 4", "example 17"]


def test_reasons_and_what_was_left_out_are_shown():
    text = Outline(HTML.render(REPORT)).text
    for words in ("[1] no meter", "simplify: slower", "half: no fp16", "early-exit rule=entropy"):
        assert words in text


def test_several_reports_stand_under_one_table():
    other = replace(REPORT, model="other", verdict=replace(REPORT.verdict, status="not met"))
    found = Outline(HTML.render_page((REPORT, other), ({}, {})))
    assert [value for tag, key, value in found.attributes if (tag, key) == ("a", "href")] == ["#r1-top", "#r2-top"]
    assert found.tags["article"] == 2


# ------------------------------------------------------------------ the parts


def test_the_command_can_be_pasted():
    contract = "max-drop 1%, min-speedup off, max-latency 10 ms (p99), max-size 4000 B"
    text = command({**REPORT.settings, "task": "a b.npz", "runtimes": "ort, tvm", "contract": contract})
    assert text == (
        "engine deploy 'my net.onnx' --task 'a b.npz' --apply simplify --apply early-exit:exits=2 --target cpu "
        "--runtime ort,tvm --seed 1 --max-drop 1% --min-speedup off --max-latency 10ms:p99 --max-size 4000B"
    )
    assert "--task" not in command({**REPORT.settings, "task": "none (seeded noise: no accuracy)", "methods": "none"})
    assert command({"seed": 1}) == ""
