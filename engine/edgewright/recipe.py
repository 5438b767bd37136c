"""From the command line or a TOML file to a Recipe: every name known, every parameter typed, every bound checked."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from edgewright.contract import BOUND_NAMES, Bounds, parse_bounds
from edgewright.discovery import GROUP
from edgewright.errors import RecipeError, no_file, suggest
from edgewright.params import parse_params, split_call
from edgewright.presets import find_preset
from edgewright.protocols import Kernel, OnnxTransform, TorchTransform
from edgewright.registry import EXPORTERS, KERNELS, METERS, RUNTIMES, TRANSFORMS, Registry
from edgewright.types import Offer, Target

PROJECT_FILE = "edgewright.toml"

USUAL_FORM = "onnx"
"""What ships when nothing is said: the graphs as they are, which every runtime here is measured with first."""


BUILT_IN_KERNELS = ("auto",)
"""What exporters call where nothing is said: the kernels that come with the engine."""


@dataclass(frozen=True)
class MethodCall:
    """A method as the user wrote it: its name and raw parameters."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """Everything a user can ask of `engine deploy`, as typed; None means not said."""

    model: str | None = None
    target: str | None = None
    apply: tuple[MethodCall, ...] | None = None
    task: str | None = None
    on: str | None = None
    runtime: tuple[str, ...] | None = None
    meter: tuple[str, ...] | None = None
    exporter: tuple[str, ...] | None = None
    kernel: tuple[str, ...] | None = None
    bounds: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    batch: int | None = None
    threads: int | None = None
    seed: int | None = None
    tune: int | None = None
    preset: str | None = None
    allow_fallback: bool | None = None
    out: str | None = None


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


def parse_method(text: str) -> MethodCall:
    """`quantize:mode=static,keep=a+b` as a call.

    Raises: RecipeError for a parameter without a value or one that is said twice.
    """
    name, params = split_call(text, "--apply")
    if not name:
        raise RecipeError(f"--apply {text!r} names no method")
    return MethodCall(name, params)


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`image:1x3x224x224` as name and sizes. Raises: RecipeError."""
    name, _, sizes = text.rpartition(":")
    parts = sizes.split("x")
    if not name or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise RecipeError(f"--shape {text!r} is not NAME:SIZES; write image:1x3x224x224")
    return name, tuple(int(p) for p in parts)


def read_request(path: Path) -> Request:
    """A recipe or project file as a request. Paths in it are relative to its folder.

    Raises: RecipeError naming the file, the key, and the nearest key.
    """
    document = _read_toml(path)
    methods = _tables(path, document.pop("method", None), "[[method]]")
    contract = _table(path, document.pop("contract", {}), "[contract]")
    shapes = _table(path, document.pop("shapes", {}), "[shapes]")
    known = {f.name for f in fields(Request)} - {"bounds", "apply", "shapes"}
    for key in document:
        if key not in known:
            raise RecipeError(f"{path}: unknown key {key!r}; {suggest(key, known | {'method', 'contract', 'shapes'})}")
    for key in contract:
        if key not in BOUND_NAMES:
            raise RecipeError(f"{path}: [contract] has no bound {key!r}; {suggest(key, BOUND_NAMES)}")
    values: dict[str, Any] = {key: _typed(path, key, value) for key, value in document.items()}
    for key in ("model", "task", "out"):
        if key in values:
            values[key] = _beside(path, values[key])
    return Request(
        **values,
        apply=None if methods is None else tuple(_method_table(path, table) for table in methods),
        bounds={key: str(value) for key, value in contract.items()},
        shapes={name: _sizes(path, name, sizes) for name, sizes in shapes.items()},
    )


def merge(first: Request, second: Request) -> Request:
    """`first`, with what it leaves unsaid taken from `second`."""
    changes: dict[str, Any] = {}
    for f in fields(Request):
        mine, other = getattr(first, f.name), getattr(second, f.name)
        if isinstance(mine, Mapping):
            changes[f.name] = {**cast("Mapping[str, Any]", other), **cast("Mapping[str, Any]", mine)}
        elif mine is None:
            changes[f.name] = other
    return replace(first, **changes)


# ------------------------------------------------------------------ resolving


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


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(no_file(path, "recipe file")) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} is not readable TOML: {error}") from error


_TYPES: Mapping[str, type[Any]] = {"batch": int, "threads": int, "seed": int, "tune": int, "allow_fallback": bool}


def _typed(path: Path, key: str, value: Any) -> Any:
    if key in ("runtime", "exporter", "kernel", "meter"):
        return tuple(str(v) for v in (cast("list[Any]", value) if isinstance(value, list) else str(value).split(",")))
    kind = _TYPES.get(key, str)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RecipeError(f"{path}: {key} = {value!r} must be {_WORDS[kind]}")
    return value


_WORDS: Mapping[type[Any], str] = {int: "a whole number", bool: "true or false", str: "text"}


def _table(path: Path, value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: {name.strip('[]')} = {value!r} must be a table, {name}")
    return cast("dict[str, Any]", value)


def _tables(path: Path, value: Any, name: str) -> list[dict[str, Any]] | None:
    if value is not None and not isinstance(value, list):
        raise RecipeError(f"{path}: {name.strip('[]')} = {value!r} must be a list of tables, {name}")
    return None if value is None else [_table(path, each, name) for each in cast("list[Any]", value)]


def _sizes(path: Path, name: str, value: Any) -> tuple[int, ...]:
    sizes = cast("list[Any]", value if isinstance(value, list) else [None])
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise RecipeError(f"{path}: [shapes] {name} = {value!r} must be a list of sizes such as [1, 3, 224, 224]")
    return tuple(sizes)


def _method_table(path: Path, table: Mapping[str, Any]) -> MethodCall:
    if "name" not in table:
        raise RecipeError(f"{path}: a [[method]] has no name")
    return MethodCall(str(table["name"]), {key: value for key, value in table.items() if key != "name"})


def _beside(path: Path, text: str) -> str:
    place = Path(text)
    return text if place.is_absolute() else str(path.parent / place)
