"""Reads a `.pt2` archive before torch does, and refuses whatever could run code of the file's own.

`torch.export.load` unpickles tensors and sample inputs, looks up functions by dotted name, evaluates size
expressions and writes names into Python source. Everything here is an allow-list: what is not known is refused.
"""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import torch

from edgewright.errors import ModelError

NAME = re.compile(r"[\w.:+-]*")
"""Names of weights, devices, versions."""

OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|higher_order|torchvision)\.(?!__)\w+(\.(?!__)\w+)?"
    r"|torch\.sym_\w+|math\.\w+"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|eq|ne|ge|gt|le|lt|and_|or_|not_)"
)

FREE_TEXT = ("as_string", "as_strings", "stack_trace", "torch_fn", "nn_module_stack", "source_fn_stack", "from_node")
"""Strings that torch hands to operators, or keeps for people to read."""

CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}

SIZE_FUNCTIONS = {
    *("Symbol", "Integer", "Float", "Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv"),
    *("CeilToInt", "ModularIndexing", "Where", "Eq", "Ne", "Ge", "Gt", "Le", "Lt", "And", "Or", "Not"),
}


def screen(data: bytes, source: str) -> None:
    """Raises: ModelError when the archive is damaged, or holds anything beyond tensors, operators and sizes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # torch's own reader ignores case and may pick another of two equal names than Python's does
            if len({name.lower() for name in archive.namelist()}) < len(archive.namelist()):
                raise ModelError(f"{source} holds two members of one name; save it with torch.export.save")
            members = {name.partition("/")[2]: name for name in archive.namelist()}
            for inner, name in members.items():
                _screen_member(inner, archive.read(name), source)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{source} is not an archive that torch.export.save wrote: {error}") from error
    if not any(inner.startswith("models/") for inner in members):
        raise ModelError(f"{source} holds no exported program; save it with torch.export.save of torch 2.9 or later")


def _screen_member(inner: str, content: bytes, source: str) -> None:
    if inner.startswith("data/aotinductor/"):
        raise ModelError(f"{source} holds compiled code ({inner}); save it with torch.export.save")
    if inner.startswith("models/"):
        _screen_program(json.loads(content), source)
    elif inner.endswith("_config.json"):
        _screen_payloads(json.loads(content), source)
    elif inner.startswith("data/sample_inputs/") or inner.endswith(".pt"):
        _screen_pickle(inner, content, source)


def _screen_payloads(config: Any, source: str) -> None:
    for name, entry in config["config"].items():
        if entry["use_pickle"] or not re.match(r"weight_|tensor_", entry["path_name"]):
            raise ModelError(f"{source} keeps {name!r} as a pickle, which could run code; save it as a plain tensor")


def _screen_pickle(inner: str, content: bytes, source: str) -> None:
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(f"{source} holds a pickle of more than tensors ({inner}), which could run code") from error


def _screen_program(program: Any, source: str) -> None:
    for key, text in _strings(program, ""):
        allowed = key in FREE_TEXT or _allowed(key, text)
        if not allowed:
            raise ModelError(f"{source} holds {key} {text[:80]!r}, which is no tensor operator, size or name")


def _allowed(key: str, text: str) -> bool:
    if key in ("target", "as_operator"):
        return OPERATOR.fullmatch(text) is not None
    if key in ("expr_str", "guards_code"):
        return _is_arithmetic(text)
    if key in ("in_spec", "out_spec"):
        return all(kind in CONTAINERS for kind in _container_types(json.loads(text)))
    # names of values are written into Python source; dots, colons and signs stand in weights and versions only
    return text.isidentifier() if key == "name" else NAME.fullmatch(text) is not None


def _strings(item: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every string, key of a mapping included, with the key it lies under; metadata by its own keys."""
    if isinstance(item, str):
        yield key, item
    elif isinstance(item, list):
        for each in item:
            yield from _strings(each, key)
    elif isinstance(item, dict):
        for name, each in item.items():
            yield "key", name
            yield from _strings(each, name)


def _container_types(spec: Any) -> Iterator[str | None]:
    if isinstance(spec, list):
        for each in spec:
            yield from _container_types(each)
    elif isinstance(spec, dict):
        yield spec.get("type")
        yield from _container_types(spec.get("children_spec", []))


def _is_arithmetic(text: str) -> bool:
    """Whether Python would do no more with it than calculate with sizes."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return False
    return all(_calculates(node) for node in ast.walk(tree))


def _calculates(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in SIZE_FUNCTIONS
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float)) or re.fullmatch(r"[a-z]\w*", str(node.value)) is not None
    if isinstance(node, ast.Name):
        return not node.id.startswith("_")
    arithmetic = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.keyword, ast.expr_context)
    return isinstance(node, (*arithmetic, ast.operator, ast.unaryop, ast.boolop, ast.cmpop))
