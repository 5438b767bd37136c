"""Finds a runtime by its name, or by the `module:object` that a third party's offer carries."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from edgewright.errors import InputError, suggest

if TYPE_CHECKING:
    from edgewright.protocols import Runtime

BUILT_IN = {
    "ort": "edgewright_runtime.ort:ORT",
    "openvino": "edgewright_runtime.openvino:OPENVINO",
    "null": "edgewright_runtime.null:NULL",
    "tvm": "edgewright_runtime.tvm:TVM",
}

AT_HAND = ("ort", "openvino", "null")
"""Built-in runtimes for which nothing is prepared that is not prepared for all."""


def preparing(entries: Mapping[str, str]) -> dict[str, str]:
    """Those of `entries` (name to `module:object`) for which more is to be imported than for all."""
    return {name: entry for name, entry in entries.items() if name not in AT_HAND or entry != BUILT_IN[name]}


def find_runtime(name: str, entries: Mapping[str, str]) -> Runtime:
    """The runtime called `name`; `entries` maps names to `module:object` and goes before the built-in ones.

    Raises: InputError when it is unknown or cannot be imported.
    """
    known = {**BUILT_IN, **entries}
    if name not in known:
        raise InputError(f"the bundle asks for the runtime {name!r}, which is not here; {suggest(name, known)}")
    module, _, attribute = known[name].partition(":")
    try:
        return cast("Runtime", getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"the runtime {name!r} cannot be imported from {known[name]} on this device ({error}); "
            "install its package there"
        ) from error
