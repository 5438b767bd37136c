"""The conformance kit: checks that every offer of a kind must pass, for plugin authors and for `engine plugin test`.

    @pytest.fixture(scope="session")
    def rig(tmp_path_factory):
        with open_rig(tmp_path_factory.mktemp("rig"), Registry()) as rig:
            yield rig

    @pytest.mark.parametrize("case", cases(Registry(), "my-distribution"), ids=str)
    def test_conformance(case, rig):
        refusal = case.run(rig)
        if refusal:
            pytest.skip(refusal.reason)

A case that fails raises PluginError, which names the offer and where it failed: state, params, check, load, apply,
export, open, run, craft, render, predict or mismatch. A case that does not apply returns a Refusal with the reason.
"""

from __future__ import annotations

from edgewright.testing.cases import Case, cases
from edgewright.testing.rig import Rig, open_rig

__all__ = ["Case", "Rig", "cases", "open_rig"]
