"""What exporters need of the host: shown, fetched where that can be done, and told where it cannot."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from edgewright.environment import Environment
from edgewright.registry import Registry, Source, installed
from edgewright.store import Store
from edgewright.verbs.checkup import Finding, examine, fix

NEEDY = """
from pathlib import Path

from edgewright.errors import RefusedError
from edgewright.protocols import Requirement

EDGEWRIGHT_API = 1

def refuse():
    raise RefusedError("the shop is closed")

class Needy:
    name, format = "needy", "onnx"
    def requirements(self):
        bread = Path(__file__).parent / "bread"
        there = str(bread) if bread.is_file() else ""
        return (
            Requirement("bread", there, "there is no bread", lambda: bread.write_text("rye")),
            Requirement("milk", reason="there is no milk", fix=refuse),
            Requirement("time", reason="only you can take it"),
        )
    def check(self, model, target): ...
    def export(self, model, context): ...

def edgewright_exporters():
    return (Needy(),)
"""


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    """With an exporter that needs three things: one can be fetched, one cannot, one is for people."""
    (tmp_path / "needy_of_test.py").write_text(NEEDY)
    monkeypatch.syspath_prepend(tmp_path)
    source = Source("needy", "edgewright-needy", "1", partial(importlib.import_module, "needy_of_test"))
    cache = tmp_path / "cache"
    cache.mkdir()
    others = [each for each in installed() if each.name != "exporters"]  # whose fixes would use the network
    yield Environment(Registry([*others, source]), Store(cache), lambda *_: None)
    sys.modules.pop("needy_of_test")


def needy(findings: tuple[Finding, ...]) -> list[tuple[str, str, str]]:
    return [(f.state, f.what, f.found) for f in findings if f.what.startswith("needy")]


def test_what_is_missing_is_told_and_fetched(env: Environment, tmp_path: Path) -> None:
    milk = ("missing", "needy: milk", "there is no milk")
    took = ("missing", "needy: time", "only you can take it")
    assert needy(examine("local", env).findings) == [("missing", "needy: bread", "there is no bread"), milk, took]
    assert [f for f in fix(env) if f.what.startswith("needy")] == [
        Finding("ok", "needy: bread", "fetched"),
        Finding("missing", "needy: milk", "the shop is closed"),
    ]
    assert needy(examine("local", env).findings) == [("ok", "needy: bread", str(tmp_path / "bread")), milk, took]


@pytest.mark.parametrize(
    ("address", "code", "reason"),
    [
        ("local://elsewhere", 4, "local takes no address"),
        ("ftp://board", 2, "allowed: adb, local, ssh"),
    ],
)
def test_a_device_that_cannot_be_looked_at_is_the_last_line_and_the_exit_code(
    env: Environment, address: str, code: int, reason: str
) -> None:
    found = examine(address, env)
    assert found.status == code
    assert (found.findings[-1].state, found.findings[-1].what) == ("missing", address)
    assert reason in found.findings[-1].found
