"""Every installed distribution and everything that it offers, but for methods, passes the conformance kit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgewright.registry import Registry
from edgewright.registry.kinds import KINDS
from edgewright.testing import cases

OTHERS = ("package", *(kind.noun for kind in KINDS if kind.noun != "transform"))


def test_there_is_something_to_check() -> None:
    kinds = {case.kind.plural for case in cases(Registry())}
    assert {"packages", "loaders", "transforms", "exporters", "runtimes", "targets", "predictors", "renderers"} <= kinds


@pytest.mark.edgewright(kinds=OTHERS)
def test_offer(edgewright_case: Callable[[], None]) -> None:
    edgewright_case()
