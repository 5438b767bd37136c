"""An example plugin: says which plugin interface it is written for, and lists the modules that offer something."""

from __future__ import annotations

EDGEWRIGHT_API = 1

MODULES = ("edgewright_acme.board", "edgewright_acme.prune")
