"""The rig of the kit under a short name; it is the one that plugin authors get."""

from __future__ import annotations

import pytest

from edgewright.testing import Rig


@pytest.fixture(scope="session")
def rig(edgewright_rig: Rig) -> Rig:
    """One rig for all cases: opening it starts an agent."""
    return edgewright_rig
