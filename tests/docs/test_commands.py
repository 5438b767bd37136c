"""Every command on a page, run or not, is one that the command line takes: verb, options, methods, names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import click
import pytest

from edgewright.asking.bounds import BOUND_NAMES, parse_bounds
from edgewright.asking.request import parse_method, parse_shape
from edgewright.cli import engine
from edgewright.errors import EdgewrightError
from edgewright.params import parse_params
from edgewright.registry import EXPORTERS, KINDS, METERS, RUNTIMES, TARGETS, TRANSFORMS, Registry
from edgewright.verbs.judging import parse_condition
from fenced import DOCS, ROOT, Block, blocks_of, commands_of, inline_commands, pages

LISTS = {"exporter": EXPORTERS, "runtime": RUNTIMES, "meter": METERS}
SOURCES = ("engine", "plugins", "exporters", "runtime", "devices")
WORDS = {"auto", "none"}
OPEN = {"...", "NAME"}
"""What stands for something that readers choose."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(only=())


def find(rest: list[str]) -> click.Command:
    """The verb that `rest` begins with, whose words are taken off. Raises: click.UsageError."""
    command: click.Command = engine
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command), rest[0])
        assert found, f"no command {rest[0]}"
        command = found
        rest.pop(0)
    return command


def parsed(argv: Sequence[str]) -> dict[str, Any]:
    """What the real parser makes of a command. Raises: click.UsageError."""
    rest = list(argv)
    with find(rest).make_context("engine", rest, parent=click.Context(engine)) as made:
        return made.params


def check(argv: Sequence[str], registry: Registry, made: set[str]) -> None:
    """Raises: click.UsageError or EdgewrightError for what no user could type with success."""
    given = parsed(argv)
    for text in given.get("apply") or ():
        if text not in OPEN:
            call = parse_method(text)
            parse_params(registry.get(TRANSFORMS, call.name).value.Params, call.params, call.name)
    for option, kind in LISTS.items():
        for name in str(given.get(option) or "").split(","):
            if name and name not in WORDS | OPEN | made:
                registry.get(kind, name)
    target = str(given.get("target") or (given.get("name") if argv[0] == "targets" else None) or "")
    families = {offer.value.family for offer in registry.all(TARGETS)}
    if target and not target.endswith(".toml") and target not in families | OPEN | made:
        registry.get(TARGETS, target)
    parse_bounds({name: given[name] for name in BOUND_NAMES if given.get(name)})
    assert given.get("kind") in (None, *(kind.noun for kind in KINDS)), given
    for text in given.get("fail_if") or ():
        parse_condition(text)
    for text in given.get("shape") or ():
        parse_shape(text)


def commands() -> Iterator[tuple[Block, Sequence[str]]]:
    for page in pages():
        for block in blocks_of(page):
            for argv in commands_of(block):
                yield block, argv


def test_every_command_of_every_page_is_taken_by_the_parser(registry, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "networks.csv").touch()
    wrong: list[str] = []
    count = 0
    for block, argv in commands():
        count += 1
        try:
            check(argv, registry, made={"acme-board", "acme-lean", "acme-reference", "acme-meter"})
        except click.exceptions.Exit:
            pass
        except (click.UsageError, EdgewrightError) as error:
            wrong.append(f"{block}: engine {' '.join(argv)}: {error}")
    assert not wrong, "\n".join(wrong)
    assert count > 80, "the pages have lost their commands"


def test_verbs_and_options_that_are_named_in_a_sentence_exist():
    wrong: list[str] = []
    for page in pages():
        for line in inline_commands(page):
            words = line.split()[1:]
            verb = find(words)
            known = {flag for option in verb.params for flag in option.opts} | {"--help", "-h", "--version"}
            wrong += [f"{page}: `{line}`: {word}" for word in words if word.startswith("--") and word not in known]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        "deploi model.onnx",
        "deploy model.onnx --targt cpu",
        "deploy model.onnx --target cpu --apply quantise",
        "deploy model.onnx --target cpu --apply quantize:bit=4",
        "deploy model.onnx --target raspberry-pi-9",
        "deploy model.onnx --target cpu --exporter onxn",
        "deploy model.onnx --target cpu --max-drop 1",
        "compare A B --fail-if speed>3%",
        "profile BUNDLE --preset long",
    ],
)
def test_a_command_that_rots_is_found(wrong, registry):
    with pytest.raises((click.UsageError, EdgewrightError), match=r"allowed|write|No such option|is not one of"):
        check(wrong.split(), registry, made=set())


def test_every_environment_variable_that_is_read_is_explained():
    sources = [file for name in SOURCES for file in (ROOT / name).rglob("*") if file.suffix in (".py", ".cpp", ".h")]
    read = {name for file in sources for name in re.findall(r'"(EDGEWRIGHT_[A-Z_]+)"', file.read_text("utf-8"))}
    told = (DOCS / "guides" / "troubleshooting.md").read_text(encoding="utf-8")
    assert read - {"EDGEWRIGHT_API"}
    assert not [name for name in read - {"EDGEWRIGHT_API"} if name not in told]
