"""Lists the modules whose loaders and methods come with the engine; a new one is one more line."""

from __future__ import annotations

EDGEWRIGHT_API = 1

MODULES = (
    "edgewright_plugins.adaquant",
    "edgewright_plugins.early_exit",
    "edgewright_plugins.attacks",
    "edgewright_plugins.eora",
    "edgewright_plugins.ftwt",
    "edgewright_plugins.gates",
    "edgewright_plugins.half",
    "edgewright_plugins.kv_skip",
    "edgewright_plugins.lift",
    "edgewright_plugins.loaders",
    "edgewright_plugins.lower",
    "edgewright_plugins.lsq",
    "edgewright_plugins.mixed_bits",
    "edgewright_plugins.nested_if",
    "edgewright_plugins.quantize",
    "edgewright_plugins.shiftadd",
    "edgewright_plugins.simplify",
    "edgewright_plugins.sparsifiner",
    "edgewright_plugins.stvit",
    "edgewright_plugins.token_merge",
    "edgewright_plugins.token_slim",
)
