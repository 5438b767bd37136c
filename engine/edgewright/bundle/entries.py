"""Values in the JSON form that manifests and the cache keep them in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, cast

from edgewright.types import Gate, Goal, GraphFile, Signature, Stage, State, TensorSpec, Variant


def plain(value: Any) -> Any:
    """`value` as JSON takes it: dataclasses as objects, tuples as lists, paths as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, Path):
        return str(value)
    scalar: Any = value
    return scalar.item() if getattr(scalar, "shape", None) == () else value


def variant_entry(variant: Variant) -> dict[str, Any]:
    """A variant in its JSON form; its graphs are known by digest and format."""
    stages = [
        {
            "name": stage.name,
            "digest": stage.graph.digest,
            "format": stage.graph.format,
            "inputs": list(stage.inputs),
            "outputs": list(stage.outputs),
            "carry": list(stage.carry),
            "gate": plain(stage.gate),
            "free_rows": stage.free_rows,
            "exits": stage.exits,
        }
        for stage in variant.stages
    ]
    return {"name": variant.name, "goal": plain(variant.goal), "stages": stages}


def parse_variant(entry: Mapping[str, Any], path_of: Callable[[str, Mapping[str, Any]], Path]) -> Variant:
    """A variant from its JSON form; `path_of` (variant's name, stage's entry) tells where a stage's file lies."""
    name = str(entry["name"])
    stages = tuple(_stage(stage, path_of(name, stage)) for stage in entry["stages"])
    return Variant(name, stages, Goal(**entry["goal"]) if entry.get("goal") else None)


def _stage(entry: Mapping[str, Any], path: Path) -> Stage:
    graph = GraphFile(path, str(entry["digest"]), str(entry.get("format", "onnx")))
    names = {key: tuple(str(n) for n in entry[key]) for key in ("inputs", "outputs", "carry")}
    gate = Gate(**entry["gate"]) if entry.get("gate") else None
    free, exits = bool(entry.get("free_rows")), str(entry.get("exits", ""))
    return Stage(str(entry["name"]), graph, **names, gate=gate, free_rows=free, exits=exits)


def parse_signature(entry: Mapping[str, Any]) -> Signature:
    """A Signature from its JSON form."""
    specs = {
        side: tuple(TensorSpec(str(s["name"]), str(s["dtype"]), tuple(s["shape"])) for s in entry[side])
        for side in ("inputs", "outputs")
    }
    state = tuple(State(str(s["output"]), str(s["input"])) for s in entry.get("state", ()))
    return Signature(specs["inputs"], specs["outputs"], state)
