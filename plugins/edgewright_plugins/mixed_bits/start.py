"""What a search for a mix starts from: the prepared graph, its ranges, and every layer in every number of bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import cast

import onnx

from edgewright import onnxkit
from edgewright.errors import RecipeError, RefusedError
from edgewright.grids import ACTIVATIONS, WEIGHTS, Encoding, encode_closest, encode_range
from edgewright.protocols import Context
from edgewright.types import Arrays, Model
from edgewright_plugins.mixed_bits import Params
from edgewright_plugins.mixed_bits.job import Job
from edgewright_plugins.mixed_bits.losses import judge_by
from edgewright_plugins.mixed_bits.net import FLOAT, FULL, Net, usable_layers
from edgewright_plugins.qdq.calibrate import find_ranges
from edgewright_plugins.qdq.layers import Layer, constant
from edgewright_plugins.qdq.place import Scheme, activations
from edgewright_plugins.qdq.prepare import prepare
from edgewright_plugins.qdq.ranges import Range
from edgewright_plugins.qdq.tune import Adapted

Ranges = Mapping[str, Range]
Forms = Mapping[tuple[str, int], Adapted]


def start(model: Model, params: Params, context: Context) -> Job:
    """The job for a model of one graph.

    Raises: ModelError when the graph cannot be prepared or an activation has no range.
    """
    context.progress("mixed-bits: preparing")
    proto = prepare(onnxkit.read(model.graph))
    feeds = {split: list(context.feed(model, split, params.examples)) for split in ("calibration", "selection")}

    def calibrate() -> dict[str, dict[str, Range]]:
        context.progress("mixed-bits: calibrating")
        return find_ranges(proto, activations(proto), lambda: feeds["calibration"])

    found = cast("Mapping[str, Ranges]", context.remember("ranges", calibrate))
    net = net_of(proto, Scheme(params.mode), found, feeds["calibration"], params.activations)
    bits = sorted({*options_of(params), FULL} - {FLOAT})
    forms = _adapted(net, bits, feeds["calibration"], context) if params.adapt else nearest_forms(net, bits)
    judges = {split: judge_by(proto, given) for split, given in feeds.items()}
    return Job(model, context, replace(net, forms=forms), judges)


def options_of(params: Params) -> tuple[int, ...]:
    """The bits to choose from, ascending.

    Raises: RecipeError for bits that nothing has, or that take as long as others where latency counts.
    """
    timed = params.cost == "latency"
    options = tuple(sorted(set(params.options))) or ((FULL, FLOAT) if timed else (2, 4, FULL))
    wrong = [bits for bits in options if bits > FULL and bits != FLOAT]
    if wrong:
        raise RecipeError(f"mixed-bits: options={wrong[0]} is no number of bits; allowed: 2 to 8, and 32 for float")
    if timed and options != (FULL, FLOAT):
        raise RecipeError(
            "mixed-bits: fewer than 8 bits take as long as 8 on int8 kernels; with cost=latency leave options out"
        )
    return options


def net_of(
    proto: onnx.ModelProto, scheme: Scheme, ranges: Mapping[str, Ranges], feeds: Sequence[Arrays], bits: int
) -> Net:
    """The network with the ranges, of those found by several methods, that lose least with all weights in 8 bits."""
    layers = usable_layers(proto, scheme)
    nets = [
        Net(proto, layers, scheme, found, {}, input_encodings(layers, found, bits))
        for found in ({name: (low, high) for name, (low, high) in each.items()} for each in ranges.values())
    ]
    judge = judge_by(proto, feeds)
    return min(nets, key=lambda net: judge.loss_of(net.made(net.uniform(FULL))))


def input_encodings(layers: Iterable[Layer], ranges: Ranges, bits: int) -> dict[str, Encoding]:
    """How the inputs of layers are quantised to fewer bits than the scheme's 8; nothing at 8."""
    if bits == FULL:
        return {}
    grid = replace(ACTIVATIONS, bits=bits)
    return {layer.input: encode_range(grid, *ranges[layer.input]) for layer in layers}


# ------------------------------------------------------------------ forms


def nearest_forms(net: Net, options: Sequence[int]) -> dict[tuple[str, int], Adapted]:
    """Every layer rounded to its nearest codes; scales per channel of the least squared error."""
    found: dict[tuple[str, int], Adapted] = {}
    for layer in net.layers:
        weight = constant(net.proto, layer.weight)
        for bits in options:
            encoding = encode_closest(replace(WEIGHTS, bits=bits), weight, layer.axis)
            found[layer.name, bits] = Adapted({}, {layer.weight: encoding})
    return found


def _adapted(net: Net, options: Sequence[int], feeds: Sequence[Arrays], context: Context) -> Forms:
    """Every layer fitted in every option to its float outputs on float inputs, so that options can be mixed freely.

    Raises: RefusedError where torch is not installed.
    """
    if find_spec("torch") is None:
        raise RefusedError("mixed-bits: adapt needs PyTorch; run: pip install 'edgewright[torch]', or leave adapt out")
    from edgewright_plugins.adaquant.adapt import Settings, adapt

    settings = Settings(scheme=net.scheme, parallel=True, seed=context.seed)
    found: dict[tuple[str, int], Adapted] = {}
    for bits in options:
        grids = {layer.weight: replace(WEIGHTS, bits=bits) for layer in net.layers}
        told = _telling(context, f"mixed-bits: fitting layers in {bits} bits")
        whole = adapt(
            net.proto, grids, net.ranges, feeds, settings, progress=told, folder=context.scratch, activations=net.inputs
        )
        found |= {(layer.name, bits): _part(whole, layer) for layer in net.layers}
    return found


def _telling(context: Context, message: str) -> Callable[[int, int], None]:
    return lambda done, total: context.progress(message, done, total)


def _part(whole: Adapted, layer: Layer) -> Adapted:
    """What belongs to one layer."""
    own = (layer.weight, layer.bias, layer.input)
    values = {name: value for name, value in whole.values.items() if name in own}
    return Adapted(values, {name: encoding for name, encoding in whole.encodings.items() if name in own})
