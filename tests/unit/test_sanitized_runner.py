"""The native runner with AddressSanitizer and UndefinedBehaviorSanitizer through the suite of the agent's messages."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgewright.agents.runnerfile import NAME, Machine, build_runner
from edgewright.errors import PluginError, RefusedError
from edgewright.protocols import Link
from edgewright.toolchain.ortheader import headers_place
from unit.test_agents_alike import *  # noqa: F403 - the cases

pytestmark = pytest.mark.slow

SANITIZERS = ("-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")

# Those of the host alone, and those that ask Python's agent too: its answers are the same ones.
del test_a_compiler_that_is_missing_is_told  # noqa: F821
del test_both_answer_bit_for_bit_alike  # noqa: F821
del test_the_device_is_this_machine  # noqa: F821
del test_the_runner_says_with_which_library_it_would_run  # noqa: F821
del test_a_library_that_cannot_be_opened_is_told  # noqa: F821


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The one kind."""
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", ["native"], scope="module")


@pytest.fixture(scope="session")
def runner() -> Path:
    """The native runner, or a skip with the reason why it cannot be built so here."""
    try:
        return build_runner(Machine(platform.machine()), headers_place(), more=SANITIZERS)
    except (RefusedError, PluginError) as refusal:
        pytest.skip(str(refusal))


class SanitizedLink(NativeLink):  # noqa: F405
    """This machine, where the runner with sanitizers lies in the place of the usual one."""

    def __init__(self, runner: Path) -> None:
        super().__init__()
        self._runner = runner

    def put(self, local: Path, remote: str) -> str:
        return str(self._runner) if local.name == NAME else super().put(local, remote)


@pytest.fixture(scope="module")
def link_to(runner: Path) -> Callable[[str], Link]:
    """A way to where such a runner answers."""
    return lambda kind: SanitizedLink(runner)


@pytest.fixture(scope="module", autouse=True)
def reports(library: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a sanitizer found in any process, whatever the host was told of its end, fails the suite."""
    folder = tmp_path_factory.mktemp("found")
    # onnxruntime keeps what it allocated to its end; a fault of the runner's is to end it as the sanitizer says.
    options = f"detect_leaks=0:handle_segv=0:allow_user_segv_handler=1:log_path={folder}/address"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASAN_OPTIONS", options)
        patch.setenv("UBSAN_OPTIONS", f"print_stacktrace=1:log_path={folder}/undefined")
        yield
    assert not os.listdir(folder), "\n".join(path.read_text() for path in folder.iterdir())
