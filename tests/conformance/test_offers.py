"""Every offer of every installed plugin passes the conformance kit."""

from __future__ import annotations

import pytest

from edgewright.registry import Registry
from edgewright.testing import Case, Rig, cases

FOUND = cases(Registry())


def test_there_is_something_to_check() -> None:
    kinds = {case.kind.plural for case in FOUND}
    assert {"loaders", "transforms", "exporters", "runtimes", "targets", "predictors", "renderers"} <= kinds


@pytest.mark.parametrize("case", FOUND, ids=str)
def test_offer(case: Case, rig: Rig) -> None:
    refusal = case.run(rig)
    if refusal is not None:
        pytest.skip(refusal.reason)
