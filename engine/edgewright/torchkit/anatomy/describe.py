"""Reads a user's description of a network, which wins over what is found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, cast

from torch import nn

from edgewright.errors import TaskError, suggest
from edgewright.torchkit.anatomy.inside import common_path, kind_of, parts_of
from edgewright.torchkit.anatomy.parts import Attention, Block, Mlp
from edgewright.torchkit.anatomy.trace import Layer, Trace

FORMAT = (
    '{"blocks": "encoder.layers.*", "attention": "attn", "query": "attn.q", "key": "attn.k", "value": "attn.v" '
    '(or "qkv": "attn.qkv"), "output": "attn.proj", "heads": 4, "mlp": ["fc1", "fc2"] (and a gate), '
    '"norms": ["norm1", "norm2"], "stem": ["embed"], "head": "fc", "grid": [8, 8], "prefix_tokens": 1}, '
    "where everything may be left out that is found, and parts of a block are named from the block on"
)
PLACE = "the task's `anatomy` entry"
TEXTS = ("attention", "query", "key", "value", "qkv", "output")
LISTS = ("blocks", "mlp", "norms", "stem", "head")
COUNTS = ("heads", "kv_heads", "prefix_tokens")


@dataclass(frozen=True)
class Description:
    """What the user says of a network; empty where nothing is said. Paths of a block's parts start at the block."""

    blocks: tuple[str, ...] = ()
    attention: str = ""
    query: str = ""
    key: str = ""
    value: str = ""
    output: str = ""
    heads: int = 0
    kv_heads: int = 0
    mlp: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()
    stem: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    grid: tuple[int, ...] = ()
    prefix_tokens: int | None = None


def read_description(module: nn.Module, given: Mapping[str, Any]) -> Description:
    """The description in `given`, its patterns of blocks replaced by the modules they match.

    Raises: TaskError for an unknown entry, a value of another form, or a path that is not there.
    """
    said = {key: _value(key, value) for key, value in given.items()}
    qkv = said.pop("qkv", "")
    found = Description(**({"query": qkv, "key": qkv, "value": qkv} if qkv else {}), **said)
    if any((found.query, found.key, found.value)) and not all((found.query, found.key, found.value)):
        raise TaskError(
            f"{PLACE} names some of query, key and value; name all three, or `qkv` where one layer does all"
        )
    paths = [name for name, _ in module.named_modules() if name]
    for path in (*found.stem, *found.head):
        _present(module, path, "head or stem")
    return replace(found, blocks=tuple(path for pattern in found.blocks for path in _matches(pattern, paths)))


def _value(key: str, value: Any) -> Any:
    """One entry in the form that it must have."""
    many: list[Any] = list(cast("Sequence[Any]", value)) if isinstance(value, (list, tuple)) else [value]
    if key in TEXTS and isinstance(value, str) and value:
        return value
    if key in LISTS and _all_are(many, str) and (key != "mlp" or len(many) in (2, 3)):
        return tuple(many)
    if key in COUNTS and _all_are(many, int) and len(many) == 1 and many[0] >= (key != "prefix_tokens"):
        return many[0]
    if key == "grid" and _all_are(many, int) and min(many) > 0:
        return tuple(many)
    if key not in (*TEXTS, *LISTS, *COUNTS, "grid"):
        raise TaskError(f"{PLACE} has {key!r}; {suggest(key, (*TEXTS, *LISTS, *COUNTS, 'grid'))}")
    raise TaskError(f"{PLACE} has {key} = {value!r}, which has another form there: {FORMAT}")


def _all_are(values: Sequence[Any], kind: type) -> bool:
    return bool(values) and all(isinstance(each, kind) and not isinstance(each, bool) and each != "" for each in values)


def _matches(pattern: str, paths: Sequence[str]) -> list[str]:
    """The paths that a pattern such as `layers.*` stands for; `*` stands for one name."""
    names = pattern.split(".")
    found = [path for path in paths if _fits(path.split("."), names)]
    if not found:
        raise TaskError(
            f"{PLACE} has blocks {pattern!r}, and the network has no such modules; {nearest(pattern, paths)}"
        )
    return found


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return len(names) == len(patterns) and all(fnmatchcase(n, p) for n, p in zip(names, patterns, strict=True))


def nearest(path: str, paths: Iterable[str]) -> str:
    """The ending of a sentence on a path that is not there: what stands where the path goes astray."""
    known = set(paths)
    names = path.split(".")
    depth = next(depth for depth in range(len(names), -1, -1) if not depth or ".".join(names[:depth]) in known)
    start = "".join(f"{name}." for name in names[:depth])
    there = {start + each.removeprefix(start).split(".")[0] for each in known if each.startswith(start)}
    return suggest(path, there)


def _present(module: nn.Module, path: str, entry: str) -> str:
    paths = [name for name, _ in module.named_modules() if name] + [name for name, _ in module.named_parameters()]
    if path not in paths:
        raise TaskError(f"{PLACE} has {entry} {path!r}, and the network has no such module; {nearest(path, paths)}")
    return path


# ------------------------------------------------------------------ applied to one block


def described(block: Block, said: Description, module: nn.Module, trace: Trace) -> Block:
    """The block with the parts that the user names. Raises: TaskError when it has no such part."""

    def at(path: str, entry: str) -> str:
        return _present(module, f"{block.path}.{path}", entry)

    attention, mlp, norms = block.attention, block.mlp, block.norms
    if said.query:
        paths = at(said.query, "query"), at(said.key, "key"), at(said.value, "value")
        output = at(said.output, "output") if said.output else attention.output if attention else ""
        attention = described_attention(paths, output, said, attention.heads if attention else 0, trace)
    if said.attention and attention:
        attention = replace(attention, path=at(said.attention, "attention"))
    if said.mlp:
        mlp = described_mlp([at(path, "mlp") for path in said.mlp], trace)
    if said.norms:
        norms = tuple(at(path, "norms") for path in said.norms)
    layers = [layer for layer in trace.layers if layer.path in block.layers and layer.path not in parts_of(attention)]
    return replace(block, attention=attention, mlp=mlp, norms=norms, kind=kind_of(attention, mlp, layers))


def described_attention(
    paths: tuple[str, str, str], output: str, said: Description, shown: int, trace: Trace
) -> Attention:
    """An attention from the layers that the user names, its sizes from theirs; `shown` heads were seen to run."""
    heads = said.heads or shown
    if not heads:
        raise TaskError(f"{PLACE} names {paths[0]} and no `heads`, which the run did not show; add how many there are")
    kv_heads = said.kv_heads or heads
    wide = {path: layer_at(path, trace).wide_out for path in paths}
    query, key, value = (wide[path] for path in paths)
    if len(wide) == 1:
        head_dim = value_dim = query // (heads + 2 * kv_heads)
    else:
        head_dim = query // heads
        kv_heads = said.kv_heads or key // head_dim
        value_dim = value // kv_heads
    path = common_path([*paths, output] if output else paths)
    return Attention(path, *paths, output, heads, kv_heads, head_dim, value_dim)


def described_mlp(paths: Sequence[str], trace: Trace) -> Mlp:
    """An MLP from the layers that the user names: up, down, and the gate."""
    up, down, *gate = paths
    return Mlp(common_path(paths), up, down, layer_at(down, trace).wide_in, *gate)


def layer_at(path: str, trace: Trace) -> Layer:
    """The layer at a path. Raises: TaskError when none ran there."""
    found = next((layer for layer in trace.layers if layer.path == path), None)
    if found is None:
        near = suggest(path, [layer.path for layer in trace.layers if layer.path.startswith(path.rpartition(".")[0])])
        raise TaskError(f"{PLACE} names {path!r}, where the example used no weight; {near}")
    return found
