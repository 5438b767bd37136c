"""The suite of the agent's messages on emulated boards: Python 3.13 and 3.9, and the native runner built for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from beside import Beside, BesideLink
from edgewright.agents.agent import Agent
from edgewright.agents.agentfile import build_agent
from edgewright.agents.runnerfile import Machine, build_runner, fetch_parts
from edgewright.errors import RefusedError
from edgewright.toolchain.ortheader import headers_place
from systems import Installed
from unit.conftest import make_bundle  # noqa: F401 - a fixture
from unit.test_agents_alike import *  # noqa: F403 - the cases
from userland import PI_4

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

# What a host without such a device tells as well: how messages and arrays are read, and what is in no device's hands.
del test_nonsense_is_answered_with_an_error_and_survived  # noqa: F821
del test_random_messages_are_answered_with_errors  # noqa: F821
del test_mangled_arrays_never_end_the_worker  # noqa: F821
del test_arrays_that_are_none_are_refused  # noqa: F821
del test_a_meter_without_a_rail_is_not_read  # noqa: F821
del test_no_process_is_left_over  # noqa: F821
del test_the_tools_of_boards_are_asked  # noqa: F821
del test_a_compiler_that_is_missing_is_told  # noqa: F821

KINDS = ("python", "python 3.9", "native")
PYTHON = "/usr/bin/python3"
Boards = Callable[[str], Beside]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each kind in turn."""
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS, scope="module")


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
        fetch_parts(Machine("aarch64"), headers_place())
        built = build_runner(Machine("aarch64"), headers_place())
    except RefusedError as refusal:
        pytest.skip(str(refusal))
    return boards("native").program(shutil.copy(built, tmp_path_factory.mktemp("runner")))


@pytest.fixture(scope="module")
def link_to(boards: Boards) -> Callable[[str], BesideLink]:
    """A way to where an agent of a kind runs."""
    return lambda kind: BesideLink(boards(kind), "" if kind == "native" else PYTHON)


@pytest.fixture(scope="module")
def python_of(boards: Boards, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sequence[str]]:
    """What starts an agent of a kind that is not native."""
    packed = build_agent(tmp_path_factory.mktemp("packed"))
    return lambda kind: boards(kind).command(PYTHON, str(packed))


@pytest.mark.parametrize(("which", "python"), [("python", "3.13."), ("python 3.9", "3.9."), ("native", "")])
def test_the_board_is_told(agents: Callable[[str], Agent], runner: Path, which: str, python: str) -> None:
    found = agents(which).device()
    assert (found.isa, found.cpu, found.features, found.emulated) == ("aarch64", PI_4.model, ("asimd",), True)
    assert found.python.startswith(python)
    assert bool(found.python) == bool(python)
