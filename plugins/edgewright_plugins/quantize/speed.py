"""Which int8 schemes are worth having: all of them raced on the device, the best once more without slow nodes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from edgewright.errors import RecipeError, RefusedError
from edgewright.machine import products_are_exact
from edgewright.types import Target
from edgewright_plugins.qdq.place import Scheme, quantised_nodes
from edgewright_plugins.quantize import Params
from edgewright_plugins.quantize.job import Job, Trial
from edgewright_plugins.quantize.slow import same_operators

MUCH = 0.05
"""A node loses much when it loses this share of the whole float graph's time."""
NEAR = 0.8
"""Static schemes this close to the best of them, unsigned or signed, may change places without slow nodes."""


def race(job: Job, params: Params) -> list[Trial]:
    """Every scheme that may be chosen with its speed; the most promising ones also without their slow nodes."""
    trials = job.race([quick(job, scheme) for scheme in _schemes(job, params)])
    mended = {parent.scheme: without_slow(job, parent.scheme) for parent in _worth_mending(trials)}
    again = [scheme for parent, found in mended.items() if found for scheme in (parent, *found)]
    if not again:
        return trials
    return [trial for trial in trials if trial.scheme not in again] + job.race(again)


def _schemes(job: Job, params: Params) -> list[Scheme]:
    kept = _kept(job, params)
    modes = ("static", "static-layers", "dynamic") if params.mode == "auto" else (params.mode,)
    signs = ("u8", "s8") if params.activations == "auto" else (params.activations,)
    every = [
        Scheme(mode, sign, params.per_channel, kept)
        for mode in modes
        for sign in (signs if mode.startswith("static") else ("u8",))
    ]
    usable = [scheme for scheme in every if set(quantised_nodes(job.proto, scheme)) - kept]
    if not usable:
        raise RefusedError(
            f"quantize: no node of {job.model.name} is left for mode={params.mode}; it works on float32, and "
            "dynamic on MatMul and Gemm with constant weights only; try mode=auto, or keep fewer nodes"
        )
    return usable


def quick_bits(target: Target) -> int:
    """The most bits that weights may have for the fastest exact products: 7 on x86 without VNNI, else 8.

    Its instruction adds pairs of products in 16 bits, which two products of 8-bit weights overflow; onnxruntime takes
    slower ones for these (`onnxkit.EXACT_PRODUCTS`).
    """
    return 7 if target.isa.startswith("x86") and not products_are_exact(target.features) else 8


def quick(job: Job, scheme: Scheme) -> Scheme:
    """The scheme with weights of no more bits than the target multiplies fastest."""
    bits = quick_bits(job.context.target)
    return scheme if scheme.kind == "weights" else scheme.narrowed({layer.name: bits for layer in job.layers(scheme)})


def _kept(job: Job, params: Params) -> frozenset[str]:
    names = [node.name for node in job.proto.graph.node]
    for name in params.keep:
        if name not in names:
            near = ", ".join(difflib.get_close_matches(name, names, n=3, cutoff=0.0))
            raise RecipeError(f"quantize: keep={name!r} is no node of {job.model.name}; the nearest are {near}")
    return frozenset(params.keep)


def _worth_mending(trials: Sequence[Trial]) -> list[Trial]:
    """The fastest trial, and the fully static ones near the best of their kind: there slow nodes may hide."""
    known = [trial for trial in trials if trial.ratio is not None]
    full = [trial for trial in known if trial.scheme.kind == "static"]
    best = max((trial.ratio or 0.0 for trial in known), default=0.0)
    near = NEAR * max((trial.ratio or 0.0 for trial in full), default=0.0)
    return [t for t in known if t.ratio == best or (t in full and (t.ratio or 0.0) >= near)]


def without_slow(job: Job, scheme: Scheme) -> list[Scheme]:
    """The scheme without the nodes that lose much in int8; without all that lose; without their operators too.

    Which is best is measured: a node put back to float also brings a conversion before and after it.
    """
    int8 = set(quantised_nodes(job.proto, scheme)) - scheme.kept
    slower = [node for node in job.slower(scheme) if node.name in int8]
    worst = frozenset(node.name for node in slower if node.share > MUCH)
    nodes = frozenset(node.name for node in slower)
    kinds = same_operators(job.proto, slower) & int8
    extras = dict.fromkeys((worst, nodes, nodes | kinds))
    return [scheme.keeping(extra) for extra in extras if extra and int8 - extra]


def by_speed(trials: Sequence[Trial], forced: bool) -> list[Trial]:
    """The fastest trial of each kind, fastest first: those faster than float, or all of a mode that was asked for.

    Where nothing could be measured the first trial stands: static and unsigned, the usual best.
    """
    known = [trial for trial in trials if trial.ratio is not None and (trial.faster or forced)]
    if all(trial.ratio is None for trial in trials):
        return list(trials[:1])
    ordered = sorted(known, key=lambda trial: -(trial.ratio or 0.0))
    kinds = dict.fromkeys(trial.scheme.kind for trial in ordered)
    return [next(trial for trial in ordered if trial.scheme.kind == kind) for kind in kinds]
