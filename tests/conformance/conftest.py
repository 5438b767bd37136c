"""The models, data and agent that every conformance check works with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgewright.registry import Registry
from edgewright.testing import Rig, open_rig


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One rig for all cases: opening it starts an agent."""
    with open_rig(tmp_path_factory.mktemp("rig"), Registry()) as opened:
        yield opened
