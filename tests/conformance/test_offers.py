"""Every installed distribution and everything that it offers passes the conformance kit."""

from __future__ import annotations

from collections.abc import Callable

from edgewright.registry import Registry
from edgewright.testing import cases


def test_there_is_something_to_check() -> None:
    kinds = {case.kind.plural for case in cases(Registry())}
    assert {"packages", "loaders", "transforms", "exporters", "runtimes", "targets", "predictors", "renderers"} <= kinds


def test_offer(edgewright_case: Callable[[], None]) -> None:
    edgewright_case()
