"""The HTML report in a browser: it loads nothing, draws everything, and is of use to those who see or point less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgewright_exporters.report_html import HTML
from reports import PICTURES, a_report, bare_report

MOST_BYTES = 3_000_000
MOST_S = 2.0
ALL_KINDS = {
    "front", "tradeoffs", "exits", "spread", "operators", "roofline", "energy", "sensitivity", "prediction",
}  # fmt: skip
DRAWN = """async () => {
  for (const each of document.querySelectorAll("details.report")) each.open = true;
  for (const figure of document.querySelectorAll("figure[data-kind]")) {
    figure.scrollIntoView();
    for (let tries = 0; tries < 500 && !figure.querySelector("svg"); tries++)
      await new Promise((done) => setTimeout(done, 10));
  }
}"""
"""Brings every chart into sight, and waits until it is drawn."""


def draw_all(page):
    page.evaluate(DRAWN)


def test_every_section_draws_its_chart(opened, single):
    page = opened(single)
    draw_all(page)
    kinds = page.eval_on_selector_all("figure[data-kind]", "all => all.map(one => one.dataset.kind)")
    assert set(kinds) == ALL_KINDS
    shapes = "all => all.map(one => one.querySelectorAll('.canvas svg :is(path, rect, circle, line)').length)"
    assert min(page.eval_on_selector_all("figure[data-kind]", shapes)) > 3
    assert page.locator("h1").inner_text() == "mobilenet-v2 on cpu"
    assert page.locator("article").inner_text().index("Met: ") < page.locator("article").inner_text().index("Contract")


def test_a_bar_is_as_long_as_what_it_stands_for(opened, single):
    page = opened(single)
    draw_all(page)
    widths = page.eval_on_selector_all("#r1-exits svg rect", "all => all.map(one => Number(one.getAttribute('width')))")
    assert sorted(widths)[-1] / sorted(widths)[-2] == pytest.approx(0.6 / 0.4, rel=0.02)


def test_without_data_there_is_no_section_and_no_error(opened, tmp_path):
    path = tmp_path / "bare.html"
    path.write_text(HTML.render(bare_report()), encoding="utf-8")
    page = opened(path)
    assert page.locator("figure[data-kind]").count() == 0
    assert page.locator("h2").all_inner_texts() == [
        "Contract",
        "Before and after",
        "Left out, and why",
        "How to reproduce",
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("pages", ["single", "three"])
def test_axe_finds_no_violation(opened, request, pages, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(request.getfixturevalue(pages), color_scheme=scheme)
    if pages == "single":
        draw_all(page)
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    else:
        page.locator("#overview input").nth(0).check()
        page.locator("#overview input").nth(1).check()
    found = axe.run(page).response
    assert len(found["passes"]) > 15
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found["violations"]] == []


def test_fifty_reports_are_there_in_two_seconds(opened, fifty):
    """Of the page's own work: by the clock of its thread, which other programs do not move."""
    assert fifty.stat().st_size < MOST_BYTES
    page = opened(fifty)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def seconds() -> float:
        metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        return metrics["TaskDuration"]

    before = seconds()
    page.reload()
    page.locator("#all-gains").scroll_into_view_if_needed()
    page.locator("#all-gains svg").first.wait_for(state="attached")
    assert page.locator("#overview tbody tr").count() == 50
    assert 0.05 < seconds() - before < MOST_S


def test_filter_and_comparison(opened, dozen):
    page = opened(dozen)
    page.locator("select[name=target]").select_option("raspberry-pi-5")
    page.locator("input[name=text]").fill("det")
    assert page.locator("#shown").inner_text() == "1 of 12 reports are shown."
    assert page.locator("#overview tbody tr:visible").count() == page.locator("details.report:visible").count() == 1
    page.locator("input[name=text]").fill("nothing like it")
    assert page.locator("#overview tbody tr:visible, figure[data-kind]:visible").count() == 0
    page.locator("input[name=text]").fill("")
    page.locator("select[name=target]").select_option("")
    boxes = page.locator("#overview input")
    boxes.nth(0).check()
    assert page.locator("#comparison").is_hidden()
    boxes.nth(7).check()
    heads = page.locator("#comparison thead th").all_inner_texts()
    assert heads == ["quantity", "mobilenet-v2 on cpu", "deit-tiny on raspberry-pi-5"]
    assert "latency p50" in page.locator("#comparison tbody").inner_text()


def test_it_can_be_used_with_the_keyboard_alone(opened, dozen):
    page = opened(dozen)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "text"
    page.locator("#overview a").nth(3).focus()
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash === '#r4-top'")
    page.wait_for_function("document.querySelector('[data-report=r4] details.report').open")
    summary = page.locator("[data-report=r4] #r4-spread summary")
    summary.focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.locator("#r4-spread table").is_visible()


def test_a_narrow_window_scrolls_nothing_but_tables(opened, single):
    page = opened(single, viewport={"width": 360, "height": 700})
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    widths = page.eval_on_selector_all(".canvas svg", "all => all.map(one => one.getBoundingClientRect().right)")
    assert max(widths) <= 360


def test_paper_gets_every_chart(opened, three):
    page = opened(three, color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    drawn = "all => all.filter(one => one.querySelector('svg')).length"
    assert page.eval_on_selector_all("figure[data-kind]", drawn) == page.locator("figure[data-kind]").count() > 25
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_no_name_runs_or_breaks_anything(opened, tmp_path):
    evil = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"
    report = a_report()
    path = tmp_path / "evil.html"
    closeups = tuple(replace(each, name=evil) for each in report.closeups)
    path.write_text(HTML.render_page([replace(report, model=evil, closeups=closeups)], [PICTURES]), encoding="utf-8")
    page = opened(path)
    draw_all(page)
    assert page.title() == f"{evil} on cpu"
    assert page.locator("img").count() == 4, "the examples' own"


def test_without_scripts_the_numbers_are_there(opened, single: Path):
    page = opened(single, java_script_enabled=False)
    assert "Charts need a browser that runs scripts" in page.content(), "what Playwright disables shows no noscript"
    page.locator("#r1-roofline summary").click()
    assert page.locator("#r1-roofline table tbody tr").count() == 32
