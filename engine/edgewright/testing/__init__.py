"""The conformance kit: checks that every offer of a kind must pass, for plugin authors and for `engine plugin test`.

pytest finds it by itself (`edgewright.pytest_plugin`):

    @pytest.mark.edgewright("my-distribution")
    def test_conformance(edgewright_case):
        edgewright_case()

A case that fails raises PluginError, which names the offer, the check and where it failed: state, params, check, load,
apply, export, open, run, craft, render, predict, mismatch and the like. A case that does not apply returns a Refusal
with the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewright.testing.rig import Rig, open_rig
    from edgewright.testing.suite import Case, cases
    from edgewright.testing.verdict import Outcome, examine

_HOMES = {
    "Case": "edgewright.testing.suite",
    "Outcome": "edgewright.testing.verdict",
    "Rig": "edgewright.testing.rig",
    "cases": "edgewright.testing.suite",
    "examine": "edgewright.testing.verdict",
    "open_rig": "edgewright.testing.rig",
}

__all__ = ["Case", "Outcome", "Rig", "cases", "examine", "open_rig"]


def __getattr__(name: str) -> Any:
    """PEP 562: what a check of imports needs comes without the rest."""
    if name not in _HOMES:
        raise AttributeError(f"module 'edgewright.testing' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
