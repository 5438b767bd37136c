"""onnxruntime's telemetry stays off: in whatever imports us, and in the agent, which has no more than its zip file."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgewright.agents.agent import start_agent
from edgewright_devices.local import LocalLink

RUNNERS = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY")
"""Where one of these is set, onnxruntime reports nothing by itself."""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, in which onnxruntime is known to leave an identifier when nobody stops it."""
    for name in [name for name in os.environ if name in RUNNERS or name.startswith("XDG_")]:
        monkeypatch.delenv(name)
    unstopped, home = tmp_path / "unstopped", tmp_path / "home"
    for folder in (unstopped, home):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(unstopped))
    subprocess.run([sys.executable, "-c", "import onnxruntime"], check=True)
    if not list(unstopped.rglob("deviceid")):
        pytest.skip("this onnxruntime reports nothing")
    monkeypatch.setenv("HOME", str(home))
    return home


def test_importing_us_first_turns_it_off(home):
    subprocess.run([sys.executable, "-c", "import edgewright, onnxruntime"], check=True)
    assert not list(home.rglob("*"))


def test_what_the_user_says_counts(home, monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    subprocess.run([sys.executable, "-c", "import edgewright, onnxruntime"], check=True)
    assert list(home.rglob("deviceid"))


def test_an_agent_turns_it_off(home, tmp_path):
    link = LocalLink()
    try:
        with start_agent(link, tmp_path / "agent") as agent:
            assert "onnxruntime" in agent.device().versions
    finally:
        link.close()
    assert not list(home.rglob("*"))
