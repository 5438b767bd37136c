"""Every method of every installed distribution passes the conformance kit; a file of its own, so that two can run."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.edgewright(kinds=("transform",))
def test_method(edgewright_case: Callable[[], None]) -> None:
    edgewright_case()
