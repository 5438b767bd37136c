"""Planted defects in kernels of third parties, each found by the check for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright.errors import PluginError
from edgewright.registry import Registry
from edgewright.testing import Case, Rig, cases
from planted_kernels import SMALL, plant

SUM = "builder.load(x, place, lanes) + scaled"
DEFECTS = {
    "no-examples": ("finds its examples", "examples: ", [("(3, 5), (2, 7, 27), (1, 50, 192)", "")]),
    "blind": (
        "finds its examples",
        "find: it finds no place",
        [('is_standard(add, "Add")', 'is_standard(add, "Sub")')],
    ),
    "other-reference": (
        "computes what the graph does",
        "reference: y: its reference is off by",
        [("return x + gamma", "return x - gamma")],
    ),
    "any-operator": (
        "leaves alone what it cannot do",
        "with Div in the place of Mul",
        [('is_standard(node, "Mul")', 'is_standard(node, "Mul", "Div")')],
    ),
    "any-type": (
        "leaves alone what it cannot do",
        "holds 15 float64",
        [
            ("graph.floats(add.output[0])", "graph.shape(add.output[0])"),
            ("graph.floats(x) == shape", "graph.shape(x) == shape"),
            ("graph.floats(branch) == shape", "graph.shape(branch) == shape"),
            ("gamma = as_row(graph.constant(factors), shape[-1])", "gamma = graph.constant(factors)"),
        ],
    ),
    "one-wrong-tile": (
        "is right with every tile",
        ", 8: 'y' is off by",
        [SMALL, (SUM, f"{SUM} * builder.splat(float(tile != 8), lanes, 'float32')")],
    ),
    "beyond-its-memory": (
        "is right with every tile",
        "its process died of SIGSEGV",
        [SMALL, ("builder.store(y, place,", "builder.store(y, place + 1,")],
    ),
    "one-wide": (
        "is right with every tile",
        "armv8.2-a-dot: its process ended with 1: AssertionError",
        [SMALL, ("    lanes = across", "    assert isa.lanes > 4\n    lanes = across")],
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    for name, (_, _, changes) in DEFECTS.items():
        plant(folder, f"planted-{name}", *changes)
    return folder


@pytest.fixture
def found(site: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Case]]:
    """The cases of one of them, by the words of the check."""
    monkeypatch.syspath_prepend(site)

    def of(name: str) -> dict[str, Case]:
        registry = Registry(only=(f"planted-{name}",))
        return {case.name.partition(" ")[2]: case for case in cases(registry, f"planted-{name}")}

    return of


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found_by_its_own_check(
    name: str, found: Callable[[str], dict[str, Case]], rig: Rig
) -> None:
    check, sentence, _ = DEFECTS[name]
    if check == "is right with every tile":
        pytest.importorskip("tvm", reason="the tvm extra is not installed")
    with pytest.raises(PluginError, match=rf"^planted-{name}/planted-{name}: kernel {check}: \w+: ") as failure:
        found(name)[check].run(rig)
    assert sentence in str(failure.value)
