"""The suite of the agent's messages on emulated boards: Python 3.13 and 3.9, and the native runner built for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from beside import Beside, BesideLink
from edgewright.agent import Agent, start_agent
from edgewright.agentfile import build_agent
from edgewright.errors import RefusedError
from edgewright.ortheader import headers_place
from edgewright.runnerfile import Machine, build_runner
from systems import Installed
from unit.conftest import make_bundle  # noqa: F401 - a fixture
from unit.test_agents_alike import *  # noqa: F403 - the cases
from unit.test_agents_alike import Pipe

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

KINDS = ("python", "python 3.9", "native")
Boards = Callable[[str], Beside]


@pytest.fixture(scope="module")
def boards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Boards:
    """Where a kind runs."""
    found: dict[str, Beside] = {}

    def board(kind: str) -> Beside:
        suite = "bullseye" if kind == "python 3.9" else "trixie"
        if suite not in found:
            system: Installed = request.getfixturevalue(suite)
            found[suite] = Beside(system, tmp_path_factory.mktemp(suite))
        return found[suite]

    return board


@pytest.fixture(scope="module", autouse=True)
def library(trixie: Installed) -> Iterator[None]:
    """The native runner takes the library that Python has there."""
    found = next((trixie.site / "onnxruntime" / "capi").glob("libonnxruntime.so*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWRIGHT_ONNXRUNTIME", f"/site/onnxruntime/capi/{found.name}")
        yield


@pytest.fixture(scope="module")
def runner(boards: Boards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The native runner for the board, or a skip with the reason why it cannot be built here."""
    try:
        built = build_runner(Machine("aarch64"), headers_place())
    except RefusedError as refusal:
        pytest.skip(str(refusal))
    return boards("native").program(shutil.copy(built, tmp_path_factory.mktemp("runner")))


@pytest.fixture(scope="module")
def agents(boards: Boards, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Agent]]:
    """An agent of each kind, started when it is first asked for."""
    with ExitStack() as stack:
        started: dict[str, Agent] = {}

        def agent_of(kind: str) -> Agent:
            if kind not in started:
                link = BesideLink(boards(kind), "" if kind == "native" else "/usr/bin/python3")
                stack.callback(link.close)
                started[kind] = stack.enter_context(start_agent(link, tmp_path_factory.mktemp("agents")))
            return started[kind]

        yield agent_of


@pytest.fixture(params=KINDS)
def agent(request: pytest.FixtureRequest, agents: Callable[[str], Agent]) -> Agent:
    """Each kind in turn."""
    if request.param == "native":
        request.getfixturevalue("runner")
    return agents(request.param)


@pytest.fixture(params=KINDS)
def pipe(request: pytest.FixtureRequest, boards: Boards, tmp_path: Path) -> Iterator[Pipe]:
    """A process of each kind in turn."""
    if request.param == "native":
        command = [str(request.getfixturevalue("runner"))]
    else:
        command = [str(boards(request.param).program("/usr/bin/python3", str(build_agent(tmp_path))))]
    talking = Pipe(command)
    yield talking
    if talking.process.poll() is None:
        assert talking.end() == 0
