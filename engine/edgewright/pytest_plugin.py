"""For the tests of plugin authors, found by pytest itself: the conformance kit as fixtures.

    @pytest.mark.edgewright("my-distribution")
    def test_conformance(edgewright_case):
        edgewright_case()

runs once per check and offer of the distribution, of every installed one without a name; `kinds=("transform",)` leaves
other kinds out. `edgewright_rig` gives
small models, data and contexts to the author's own tests. Nothing is imported for tests that ask for neither.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgewright.testing import Case, Rig


def pytest_configure(config: pytest.Config) -> None:
    """Makes the mark known."""
    told = "edgewright(distribution=None, kinds=None): whose offers, and of which kinds, `edgewright_case` runs over"
    config.addinivalue_line("markers", told)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case of the marked distribution."""
    if "edgewright_case" not in metafunc.fixturenames:
        return
    from edgewright.registry import Registry
    from edgewright.testing import cases

    mark = metafunc.definition.get_closest_marker("edgewright")
    kinds = mark.kwargs.get("kinds") if mark else None
    found = cases(Registry(), mark.args[0] if mark and mark.args else None)
    found = [case for case in found if kinds is None or case.kind.noun in kinds]
    metafunc.parametrize("edgewright_case", found, ids=str, indirect=True)


@pytest.fixture(scope="session")
def edgewright_rig(tmp_path_factory: pytest.TempPathFactory) -> Generator[Rig]:
    """The models, data and agent that every check works with; opening it starts an agent."""
    from edgewright.registry import Registry
    from edgewright.testing import open_rig

    with open_rig(tmp_path_factory.mktemp("edgewright"), Registry()) as rig:
        yield rig


@pytest.fixture
def edgewright_case(request: pytest.FixtureRequest, edgewright_rig: Rig) -> Callable[[], None]:
    """Runs one case; skips with the reason where the check does not apply."""
    case: Case = request.param

    def run() -> None:
        refusal = case.run(edgewright_rig)
        if refusal is not None:
            pytest.skip(refusal.reason)

    return run
