"""From a request to a recipe: every name known, every parameter typed, every bound checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgewright.asking.bounds import Bounds, parse_bounds
from edgewright.asking.request import MethodCall, Request, parse_method
from edgewright.errors import RecipeError
from edgewright.measuring.presets import find_preset
from edgewright.params import parse_params
from edgewright.protocols import Kernel, OnnxTransform, TorchTransform
from edgewright.registry import EXPORTERS, KERNELS, METERS, RUNTIMES, TRANSFORMS, Registry
from edgewright.registry.discovery import GROUP
from edgewright.types import Offer, Target

USUAL_FORM = "onnx"
"""What ships when nothing is said: the graphs as they are, which every runtime here is measured with first."""


BUILT_IN_KERNELS = ("auto",)
"""What exporters call where nothing is said: the kernels that come with the engine."""


@dataclass(frozen=True)
class Method:
    """A method that is known, with its parameters checked."""

    offer: Offer[OnnxTransform | TorchTransform]
    params: Any

    @property
    def name(self) -> str:
        """As the user calls it."""
        return self.offer.value.name


@dataclass(frozen=True)
class Recipe:
    """What will be done, resolved. `written` tells whether the user named the methods."""

    methods: tuple[Method, ...]
    written: bool
    exporters: tuple[str, ...]
    runtimes: tuple[str, ...]
    bounds: Bounds
    seed: int
    batch: int
    threads: int
    preset: str
    allow_fallback: bool
    tune: int = 0
    meters: tuple[str, ...] = ()
    kernels: tuple[str, ...] = BUILT_IN_KERNELS


# ------------------------------------------------------------------ reading


def resolve(request: Request, target: Target, registry: Registry) -> Recipe:
    """The recipe that the request and the target's defaults make together.

    Raises: RecipeError for an unknown method, parameter, runtime or exporter, or a value out of range.
    """
    written = request.apply is not None
    calls = request.apply if request.apply is not None else tuple(parse_method(text) for text in target.recipe)
    exporters = request.exporter or (USUAL_FORM,)
    formats = [registry.get(EXPORTERS, name).value.format for name in exporters]
    automatic = (*target.runtimes, *_needed(formats, target.runtimes, registry))
    runtimes = tuple(
        dict.fromkeys(name for given in request.runtime or ("auto",) for name in _expand(given, automatic))
    )
    for name in runtimes:
        registry.get(RUNTIMES, name)
    meters = meters_of(request, target, registry)
    return Recipe(
        methods=tuple(_method(call, registry) for call in calls),
        written=written,
        exporters=exporters,
        runtimes=runtimes,
        bounds=parse_bounds(request.bounds),
        seed=_in_range("--seed", request.seed, 0, 0, 2**31 - 1),
        batch=_in_range("--batch", request.batch, 1, 1, 65536),
        threads=_in_range("--threads", request.threads, 1, 1, 1024),
        preset=find_preset(request.preset or "default").name,
        allow_fallback=bool(request.allow_fallback),
        tune=_tune(request, exporters, registry),
        meters=meters,
        kernels=_kernels(request, exporters, registry),
    )


def meters_of(request: Request, target: Target, registry: Registry) -> tuple[str, ...]:
    """The meters to try, in order; `auto` is the target's own list, `none` reads nothing.

    Raises: RecipeError for a name that no meter has.
    """
    given = tuple(name for name in request.meter or ("auto",) if name != "none")
    names = tuple(dict.fromkeys(name for each in given for name in _expand(each, target.meters)))
    for name in names:
        registry.get(METERS, name)
    return names


def kernels_of(names: Sequence[str], registry: Registry) -> tuple[Offer[Kernel], ...]:
    """The kernels that may be called, in the order in which they look at a graph; `auto` is all built-in ones.

    Raises: RecipeError for a name that no kernel has.
    """
    built_in = [registry.name(KERNELS, offer) for offer in registry.all(KERNELS) if offer.plugin == GROUP]
    expanded = dict.fromkeys(name for given in names for name in _expand(given, built_in))
    return tuple(registry.get(KERNELS, name) for name in expanded)


def _kernels(request: Request, exporters: Sequence[str], registry: Registry) -> tuple[str, ...]:
    """Raises: RecipeError for a name that no kernel has, or where none of the exporters calls kernels."""
    names = request.kernel or BUILT_IN_KERNELS
    kernels_of(names, registry)
    able = [each.value.name for each in registry.all(EXPORTERS) if getattr(each.value, "calls_kernels", False)]
    if request.kernel and not set(able) & set(exporters):
        raise RecipeError(
            f"--kernel does nothing for {', '.join(exporters)}; exporters that call kernels: {', '.join(able)}"
        )
    return names


def _tune(request: Request, exporters: Sequence[str], registry: Registry) -> int:
    """Raises: RecipeError where none of the exporters would do anything with it."""
    able = [offer.value.name for offer in registry.all(EXPORTERS) if getattr(offer.value, "tunes", False)]
    if request.tune and not set(able) & set(exporters):
        raise RecipeError(f"--tune does nothing for {', '.join(exporters)}; exporters that tune: {', '.join(able)}")
    return _in_range("--tune", request.tune, 0, 0, 86400)


def ordered(methods: Sequence[Method], model_format: str, registry: Registry) -> tuple[Method, ...]:
    """The methods with `lower` and `lift` put where they are needed, ending in ONNX.

    Raises: RecipeError when a torch method stands after an ONNX one, with the order that works.
    """
    _check_order(methods)
    steps: list[Method] = []
    at = model_format
    for method in methods:
        takes = method.offer.value.takes
        if takes != at:
            steps.append(_bridge(at, takes, registry))
        steps.append(method)
        at = method.offer.value.gives
    if at != "onnx":
        steps.append(_bridge(at, "onnx", registry))
    return tuple(steps)


def _check_order(methods: Sequence[Method]) -> None:
    torch_first = sorted(methods, key=lambda m: m.offer.value.takes != "torch")
    if [m.name for m in torch_first] != [m.name for m in methods] and not _bridged_by_hand(methods):
        late = next(a for a, b in zip(methods, torch_first, strict=True) if a is not b)
        works = " ".join(f"--apply {m.name}" for m in torch_first)
        raise RecipeError(
            f"{late.name!r} works on ONNX and stands before a method that works on torch; the order that works: {works}"
        )


def _bridged_by_hand(methods: Iterable[Method]) -> bool:
    return any(m.name in ("lift", "lower") for m in methods)


def _bridge(at: str, takes: str, registry: Registry) -> Method:
    return _method(MethodCall("lower" if (at, takes) == ("torch", "onnx") else "lift"), registry)


def _method(call: MethodCall, registry: Registry) -> Method:
    offer = registry.get(TRANSFORMS, call.name)
    return Method(offer, parse_params(offer.value.Params, call.params, call.name))


def _needed(formats: Iterable[str], runtimes: Sequence[str], registry: Registry) -> Iterable[str]:
    """The runtimes that open what those of the target cannot: whoever names an exporter wants its form to run."""
    known = [offer.value for offer in registry.all(RUNTIMES)]
    closed = set(formats).difference(*(runtime.formats for runtime in known if runtime.name in runtimes))
    return [runtime.name for runtime in known if closed & set(runtime.formats)]


def _expand(name: str, preferred: Sequence[str]) -> tuple[str, ...]:
    return tuple(preferred) if name == "auto" else (name,)


def _in_range(flag: str, value: int | None, default: int, low: int, high: int) -> int:
    if value is None:
        return default
    if not low <= value <= high:
        raise RecipeError(f"{flag} {value} is out of range; allowed: {low} to {high}")
    return value
