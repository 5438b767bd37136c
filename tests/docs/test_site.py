"""The site builds without a warning, and nothing that can be used or extended lacks its page."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import click
import pytest

from edgewright import hookspecs
from edgewright.cli import engine
from edgewright.params import describe_params
from edgewright.registry import KINDS, TARGETS, TRANSFORMS, Kind, Registry
from fenced import DOCS, ROOT

pytestmark = pytest.mark.slow

HOST = "cpu"
PAGES = {"transform": "methods/{}", "target": "targets/{}", "predictor": "prediction"}
"""Where an offer of a kind is told about; on the kind's page in `reference/` otherwise."""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; links between pages and references to code are checked by the build."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "-d", str(out / "trees")]
    done = subprocess.run(
        [*command, str(DOCS), str(out / "html")], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


def text_of(site: Path, page: str) -> str:
    """What a reader sees of a page."""
    file = site / f"{page}.html"
    assert file.is_file(), f"there is no page docs/{page}.md"
    body = file.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
    return unescape(re.sub(r"<[^>]+>", "", body))


def offers() -> Iterator[tuple[Kind[object], str]]:
    registry = Registry(only=())
    for kind in KINDS:
        for offer in registry.all(kind):
            if (kind, kind.name_of(offer.value)) != (TARGETS, HOST):
                yield kind, kind.name_of(offer.value)


def test_every_offer_has_its_page(site):
    for kind, name in offers():
        page = PAGES.get(kind.noun, f"reference/{kind.plural}").format(name)
        assert name in text_of(site, page), f"docs/{page}.md does not tell of the {kind.noun} {name}"


def test_every_option_of_every_method_is_explained(site):
    for offer in Registry(only=()).all(TRANSFORMS):
        text = text_of(site, f"methods/{offer.value.name}")
        for option in describe_params(offer.value.Params):
            assert option["help"], f"{offer.value.name}: {option['name']} has no help"
            assert f"{option['name']}" in text
            assert option["help"] in text
        assert "## Paper" in (DOCS / f"methods/{offer.value.name}.md").read_text(encoding="utf-8")


def test_every_target_has_its_figures_with_their_sources(site):
    for offer in Registry(only=()).all(TARGETS):
        target = offer.value
        if target.name != HOST:
            text = text_of(site, f"targets/{target.name}")
            for figure in (target.memory, target.bandwidth, *target.compute.values(), *target.power.values()):
                assert figure.source in text, f"{target.name}: {figure}"


def test_every_hook_has_a_reference_and_a_page_that_says_how(site):
    reference, extending = text_of(site, "reference/hooks"), text_of(site, "extending/index")
    for name, hook in inspect.getmembers(hookspecs, inspect.isfunction):
        if name.startswith("edgewright_"):
            assert name in reference
            assert (inspect.getdoc(hook) or "").split("\n")[0] in reference
    for kind in KINDS:
        assert kind.hook in extending
        text_of(site, f"extending/{kind.noun}")


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for verb in command.list_commands(context):
            found = command.get_command(context, verb)
            assert found
            yield from commands(found, f"{name} {verb}")


def test_every_command_and_option_is_in_the_reference(site):
    text = text_of(site, "reference/cli")
    for name, command in commands(engine, "engine"):
        assert name in text
        for option in (each for each in command.params if isinstance(each, click.Option) and not each.hidden):
            assert all(flag in text for flag in option.opts), f"{name} {option.opts}"


def test_no_page_asks_for_the_network(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]+)"', page.read_text(encoding="utf-8"))
        assert not loaded, f"{page.relative_to(site)} loads {loaded}"
