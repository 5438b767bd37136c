"""The emulated device, or a skip with the reason why there is none."""

from __future__ import annotations

import pytest

from edgewright.errors import RefusedError
from edgewright_exporters.loader.header import headers_place
from userland import Userland, make_userland


@pytest.fixture(scope="session")
def userland() -> Userland:
    """An aarch64 system, kept in the user's cache."""
    try:
        return make_userland(headers_place().parent / "hardware")
    except RefusedError as refusal:
        pytest.skip(str(refusal))
