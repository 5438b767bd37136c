"""One network in any mix of bits: from the bits of each layer to an integer graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from edgewright.grids import Encoding
from edgewright.types import Array
from edgewright_plugins.qdq.layers import Layer, constant, layers_of
from edgewright_plugins.qdq.place import Scheme, quantised_nodes
from edgewright_plugins.qdq.ranges import Range
from edgewright_plugins.qdq.tune import Adapted

FLOAT = 32
"""The bits of a layer that is not quantised."""
FULL = 8
"""The bits that the scheme gives a layer by itself."""

FOLLOWERS = ("Clip", "Relu")
"""After a float layer they stay float too: integers between the two would cost time and win nothing."""

Mix = tuple[int, ...]
"""The bits of each layer's weights, in the layers' order."""


@dataclass(frozen=True, eq=False)
class Net:
    """A prepared float graph, its layers, and how each is stored in so many bits: by (layer name, bits).

    `inputs` are the encodings of activations that are not quantised by their range.
    """

    proto: onnx.ModelProto
    layers: tuple[Layer, ...]
    scheme: Scheme
    ranges: Mapping[str, Range]
    forms: Mapping[tuple[str, int], Adapted]
    inputs: Mapping[str, Encoding]

    def uniform(self, bits: int) -> Mix:
        """Every layer in the same number of bits."""
        return (bits,) * len(self.layers)

    def with_layer(self, mix: Mix, position: int, bits: int) -> Mix:
        """The mix with one layer changed."""
        return (*mix[:position], bits, *mix[position + 1 :])

    def made(self, mix: Mix) -> onnx.ModelProto:
        """The graph in these bits. The same mix gives the same graph."""
        return self.adapted(mix).written(self.proto, self.scheme_of(mix), self.ranges)

    def adapted(self, mix: Mix) -> Adapted:
        """The constants that differ from the float graph's, and how tensors are quantised."""
        forms = [self.forms[key] for key in zip((layer.name for layer in self.layers), mix) if key in self.forms]
        values = {name: value for form in forms for name, value in form.values.items()}
        encodings = {name: encoding for form in forms for name, encoding in form.encodings.items()}
        return Adapted(values, {**self.inputs, **encodings})

    def constants(self, layer: str, bits: int) -> dict[str, Array]:
        """A layer's constants as so many bits give them."""
        form = self.forms[layer, bits]
        own = {each.weight: constant(self.proto, each.weight) for each in self.layers if each.name == layer}
        values = {**own, **form.values}
        encodings = form.encodings
        return {name: encodings[name].rounded(each) if name in encodings else each for name, each in values.items()}

    def scheme_of(self, mix: Mix) -> Scheme:
        """With the float layers kept, and what follows a float layer and only passes its values on."""
        floats = {layer.name for layer, bits in zip(self.layers, mix, strict=True) if bits == FLOAT}
        made = {name for node in self.proto.graph.node if node.name in floats for name in node.output}
        after = {node.name for node in self.proto.graph.node if node.op_type in FOLLOWERS and node.input[0] in made}
        return self.scheme.keeping(frozenset(floats | after))


def usable_layers(proto: onnx.ModelProto, scheme: Scheme) -> tuple[Layer, ...]:
    """The layers that the scheme quantises, in running order."""
    quantised = set(quantised_nodes(proto, scheme))
    return tuple(layer for layer in layers_of(proto) if layer.name in quantised)


def written(mix: Mix) -> str:
    """The mix in one word, to remember it by."""
    return "-".join(map(str, mix))
