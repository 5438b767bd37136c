"""A real browser: Debian's Chromium, which root installs where it is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgewright_exporters.report_html import HTML
from reports import PICTURES, a_report, many

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")

Open = Callable[..., "Page"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Skipped with the reason where there is none and none can be installed."""
    api = pytest.importorskip("playwright.sync_api")
    path = _chromium()
    with api.sync_playwright() as playwright:
        # Chromium refuses to run for root with its sandbox; the pages are our own.
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


def _chromium() -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update"], ["install", "-y", "--no-install-recommends", "chromium", "fonts-dejavu-core"]):
            subprocess.run(["apt-get", "-q", *command], check=False, capture_output=True)
        found = shutil.which("chromium")
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    return found


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of one report that has every section."""
    return _written(tmp_path_factory, 1)


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three such reports."""
    return _written(tmp_path_factory, 3)


@pytest.fixture(scope="session")
def dozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of twelve such reports, of five models on three targets."""
    return _written(tmp_path_factory, 12)


@pytest.fixture(scope="session")
def fifty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of fifty such reports."""
    return _written(tmp_path_factory, 50)


def _written(factory: pytest.TempPathFactory, count: int) -> Path:
    reports = many(count) if count > 1 else [a_report()]
    path = factory.mktemp("page") / "report.html"
    path.write_text(HTML.render_page(reports, [PICTURES] * count), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Opens a page without a network; afterwards nothing may have been asked for, and the console is empty."""
    contexts, wrong, asked = [], list[str](), list[str]()

    def open_page(path: Path, **settings: object) -> Page:
        context = browser.new_context(**settings)  # pyright: ignore[reportArgumentType]
        context.set_offline(True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    assert wrong == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert len({url for url in asked if url.startswith("file:")}) <= 1, "nothing but the page itself"
    for context in contexts:
        context.close()
