"""The lock of a device: one holder at a time, whose name is told, and nothing left when it is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.errors import DeviceError
from edgewright_runtime.holding import hold


def test_one_client_holds_a_device_and_the_next_one_is_told_who(tmp_path: Path) -> None:
    first = hold(tmp_path / "lock", "ann, a long name")
    with pytest.raises(DeviceError, match="the device is in use by ann, a long name; wait for its end"):
        hold(tmp_path / "lock", "bob")
    first.close()
    with hold(tmp_path / "lock", "bob"):
        assert (tmp_path / "lock").read_text() == "bob"
