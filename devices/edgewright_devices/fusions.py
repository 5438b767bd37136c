"""Replaces chains of small operators by the one that they spell, as runtimes do: GELU, SiLU, layer normalisation.

Each rule sees one node that only such a chain has (`Erf`, `Sigmoid`, `Sqrt`), walks to both ends, and gives up where
something else takes a value from the middle: then the runtime cannot leave it out either.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgewright_devices.nodes import Node

MAKES_CONSTANTS = {"Constant", "ConstantOfShape"}


class Wiring:
    """Who writes and who reads each tensor of a graph."""

    def __init__(self, nodes: Sequence[Node], constants: Iterable[str], outputs: Iterable[str]) -> None:
        self.writer = {name: node for node in nodes for name in node.output}
        self.readers: dict[str, list[Node]] = defaultdict(list)
        for node in nodes:
            for name in node.input:
                self.readers[name].append(node)
        self.outputs = set(outputs)
        self.constants = {
            *constants,
            *(name for node in nodes if node.op_type in MAKES_CONSTANTS for name in node.output),
        }

    def data(self, node: Node) -> list[str]:
        """What the node reads but for constants."""
        return [name for name in node.input if name and name not in self.constants]

    def before(self, name: str, *operators: str) -> Node | None:
        """The node that writes `name`, if it is one of these operators and reads one tensor of data."""
        node = self.writer.get(name)
        return node if node is not None and node.op_type in operators and len(self.data(node)) == 1 else None

    def shared(self, name: str) -> bool:
        """Whether all readers see one tensor: what is dequantised may be so for each of them anew."""
        writer = self.writer.get(name)
        return writer is None or writer.op_type != "DequantizeLinear"

    def after(self, node: Node, operator: str) -> Node | None:
        """The one reader of what `node` writes, if it is this operator."""
        readers = self.readers[node.output[0]]
        alone = len(readers) == 1 and node.output[0] not in self.outputs
        return readers[0] if alone and readers[0].op_type == operator else None


@dataclass(frozen=True)
class Chain:
    """Nodes that spell `operator` of the tensor `start`; the last of them stays."""

    operator: str
    start: str
    nodes: tuple[Node, ...]


def fuse(nodes: Sequence[Node], constants: Iterable[str], outputs: Iterable[str]) -> Sequence[Node]:
    """The nodes with each chain in the place of its last one; `constants` and `outputs` name the graph's own."""
    if not any(node.op_type in RULES for node in nodes):
        return nodes
    wiring, made, left_out = Wiring(nodes, constants, outputs), dict[str, Node](), set[str]()
    for node in nodes:
        rule = RULES.get(node.op_type)
        found = rule(wiring, node) if rule else None
        if found:
            *middle, last = found.nodes
            made[last.output[0]] = last._replace(op_type=found.operator, input=(found.start,))
            left_out.update(each.output[0] for each in middle)
    heads = ((node.output[0] if node.output else "", node) for node in nodes)
    return [made.get(name, node) for name, node in heads if name not in left_out]


def _gelu(wiring: Wiring, erf: Node) -> Chain | None:
    """0.5 x (1 + erf(x / sqrt 2)), whichever factor comes first."""
    scaled, raised = wiring.before(erf.input[0], "Div", "Mul"), wiring.after(erf, "Add")
    product = wiring.after(raised, "Mul") if raised else None
    if scaled is None or raised is None or product is None:
        return None
    start = wiring.data(scaled)[0]
    if not wiring.shared(start):
        return None
    other = next((name for name in product.input if name != raised.output[0]), "")
    if other == start:
        halved = wiring.after(product, "Mul")
        finishes = halved is not None and len(wiring.data(halved)) == 1
        return Chain("Gelu", start, (scaled, erf, raised, product, halved)) if halved and finishes else None
    half = wiring.before(other, "Mul", "Div")
    if half is None or wiring.data(half) != [start]:
        return None
    return Chain("Gelu", start, (scaled, erf, raised, half, product))


def _silu(wiring: Wiring, sigmoid: Node) -> Chain | None:
    """x sigmoid(x)."""
    product = wiring.after(sigmoid, "Mul")
    start = sigmoid.input[0]
    if product is None or set(product.input) != {start, sigmoid.output[0]} or not wiring.shared(start):
        return None
    return Chain("Swish", start, (sigmoid, product))


def _layer_normalisation(wiring: Wiring, root: Node) -> Chain | None:
    """(x - mean x) / sqrt(mean (x - mean x)^2 + e), times weights, plus a bias."""
    nodes = _variance(wiring, root)
    centred, quotient = wiring.writer.get(wiring.data(nodes[-1])[0]) if nodes else None, wiring.after(root, "Div")
    if centred is None or centred.op_type != "Sub" or quotient is None or quotient.input[0] != centred.output[0]:
        return None
    mean = wiring.before(centred.input[1], "ReduceMean")
    found = [*([mean] if mean else []), centred, *nodes, root, quotient]
    for operator in ("Mul", "Add"):
        following = wiring.after(found[-1], operator)
        if following is not None and len(wiring.data(following)) == 1:
            found.append(following)
    return Chain("LayerNormalization", centred.input[0], tuple(found))


def _variance(wiring: Wiring, root: Node) -> list[Node]:
    """Backwards from the root: what is added, the mean, the square; nothing where one is missing."""
    nodes: list[Node] = []
    name = root.input[0]
    for operator in ("Add", "ReduceMean", "Pow"):
        node = wiring.before(name, operator)
        if node is None:
            return []
        nodes.append(node)
        name = wiring.data(node)[0]
    return nodes


RULES: Mapping[str, Callable[[Wiring, Node], Chain | None]] = {
    "Erf": _gelu,
    "Sigmoid": _silu,
    "HardSigmoid": _silu,
    "Sqrt": _layer_normalisation,
}
