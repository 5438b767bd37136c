"""Planted defects: tiny distributions of third parties, each with one fault, and each found by the check for it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright.errors import PluginError
from edgewright.registry import Registry
from edgewright.testing import Case, Rig, cases

GOOD = """
from edgewright.protocols import NoParams
from edgewright.types import Refusal, Step

EDGEWRIGHT_API = 1

class Method:
    name, summary, Params = "planted", "changes nothing, and writes that down", NoParams
    takes = gives = "onnx"
    needs, reads = "nothing", ()

    def check(self, model, target):
        return None

    def apply(self, model, params, context):
        from edgewright.onnxkit import pack, read

        proto = read(model.graph)
        self.change(proto, model, context)
        return model.with_graph(context.keep(pack(proto))).after(Step(self.name, "planted"))

    def change(self, proto, model, context):
        pass
"""

OFFER = """
METHOD = Planted()

def edgewright_transforms():
    return (METHOD,)
"""

CHANGED_END = """
class Planted(Method):
    def change(self, proto, model, context):
        from onnx import helper

        output = proto.graph.output[0]
        for node in proto.graph.node:
            for position, name in enumerate(node.output):
                if name == output.name:
                    node.output[position] = "before"
        {node}
        {about}
"""

DEFECTS = {
    "mutating_input": (
        "leaves its input alone",
        """
class Planted(Method):
    def change(self, proto, model, context):
        next(iter(model.example.values()))[...] = 7
""",
    ),
    "non_determinism": (
        "is the same twice",
        """
class Planted(Method):
    def change(self, proto, model, context):
        import os
        proto.doc_string = os.urandom(8).hex()
""",
    ),
    "wrong_dtype": (
        "keeps dtypes",
        CHANGED_END.format(
            node="proto.graph.node.append(helper.make_node('Cast', ['before'], [output.name], 'wide', to=11))",
            about="output.type.tensor_type.elem_type = 11",
        ),
    ),
    "wrong_shape": (
        "keeps shapes",
        CHANGED_END.format(
            node="proto.graph.node.append(helper.make_node('Concat', ['before'] * 2, [output.name], 'twice', axis=1))",
            about="output.type.tensor_type.shape.dim[1].dim_value *= 2",
        ),
    ),
    "breaking_export": (
        "survives the export",
        CHANGED_END.format(
            node="proto.graph.node.append(helper.make_node('Magic', ['before'], [output.name], domain='planted'))",
            about="proto.opset_import.append(helper.make_opsetid('planted', 1))",
        ),
    ),
    "swallowing_errors": (
        "lets errors through",
        """
class Planted(Method):
    reads = ("task",)

    def change(self, proto, model, context):
        try:
            proto.doc_string = str(context.score(model).value)
        except Exception:
            pass
""",
    ),
    "slow_import": (
        "imports quickly",
        """
Planted = Method
table = [sum(range(number % 97)) for number in range(1_000_000)]
""",
    ),
    "heavy_import": (
        "imports nothing heavy",
        """
import onnx
Planted = Method
""",
    ),
    "network_when_imported": (
        "is quiet when imported",
        """
import socket
try:
    socket.create_connection(("192.0.2.1", 9), 1)
except OSError:
    pass
Planted = Method
""",
    ),
    "hidden_network": (
        "stays off the network",
        """
class Planted(Method):
    def change(self, proto, model, context):
        import socket
        try:
            socket.create_connection(("192.0.2.1", 9), 1)
        except OSError:
            pass
""",
    ),
    "undeclared_cost": (
        "declares what it costs",
        """
class Planted(Method):
    def change(self, proto, model, context):
        context.cost({"as it is": model})
""",
    ),
    "state_that_breaks_resume": (
        "goes on after a kill",
        """
class Planted(Method):
    found = "nothing"

    def find(self):
        self.found = "much"
        return True

    def change(self, proto, model, context):
        context.remember("find", self.find)
        proto.doc_string = self.found
""",
    ),
    "refusal_without_text": (
        "answers before it works",
        """
class Planted(Method):
    def check(self, model, target):
        return Refusal("")
""",
    ),
    "writing_elsewhere": (
        "writes where it may",
        """
class Planted(Method):
    def change(self, proto, model, context):
        from pathlib import Path
        Path("~/planted.txt").expanduser().write_text("was here")
""",
    ),
    "order_dependence": (
        "does not depend on order",
        """
first = []

class Planted(Method):
    def change(self, proto, model, context):
        first.append(model.name)
        proto.doc_string = first[0]
""",
    ),
    "no_good_neighbour": (
        "composes with the built ins",
        """
class Planted(Method):
    def change(self, proto, model, context):
        if model.history:
            raise KeyError("a model that nobody has worked on")
""",
    ),
    "undeclared_training_data": (
        "declares what it costs",
        """
class Planted(Method):
    def change(self, proto, model, context):
        proto.doc_string = str(sum(1 for _ in context.feed(model)))
""",
    ),
    "misspelt_hook": ("is found", "def edgewright_transfroms():\n    return ()\nPlanted = Method\n"),
}


def install(site: Path, name: str, text: str) -> None:
    """As an installer leaves it."""
    (site / f"{name}.py").write_text(GOOD + text + OFFER)
    info = site / f"{name}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[edgewright]\n{name} = {name}\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    install(folder, "planted_nothing", "Planted = Method\n")
    for name, (_, text) in DEFECTS.items():
        install(folder, f"planted_{name}", text)
    return folder


@pytest.fixture
def found(site: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Case]]:
    """The cases of one of them, by the words of the check."""
    monkeypatch.syspath_prepend(site)

    def of(name: str) -> dict[str, Case]:
        distribution = f"planted_{name}"
        registry = Registry(only=(distribution,))
        return {case.name.partition(" ")[2]: case for case in cases(registry, distribution)}

    return of


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found_by_its_own_check(
    name: str, found: Callable[[str], dict[str, Case]], rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    check, case = DEFECTS[name][0], found(name)
    if check in ("stays off the network", "writes where it may"):
        case["applies"].run(rig)
    with pytest.raises(PluginError, match=rf"^planted_{name}/\w+: (transform|package) {check}: \w+: "):
        case[check].run(rig)


def test_a_method_without_a_defect_passes(found: Callable[[str], dict[str, Case]], rig: Rig) -> None:
    left_out = {words: case.run(rig) for words, case in found("nothing").items()}
    assert {words: refusal for words, refusal in left_out.items() if refusal is not None} == {}


def test_the_defects_are_of_many_kinds() -> None:
    assert len({check for check, _ in DEFECTS.values()}) >= 14
