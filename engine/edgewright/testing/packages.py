"""Checks of a distribution as a whole: that it is found, and that listing it costs nothing and touches nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from edgewright.errors import PluginError
from edgewright.registry import Registry
from edgewright.registry.kinds import Kind
from edgewright.testing.imports import Imported, imported
from edgewright.testing.rig import Rig
from edgewright.testing.verdicts import require
from edgewright.types import Offer

MOST = 1.0
"""How long importing one module may take, as a share of importing the engine's registry and NumPy."""

TURNS = 5
"""Processes that are tried, since others may work on this machine meanwhile; the quickest counts."""


@dataclass(frozen=True)
class Package:
    """A distribution that brings plugins: the modules of those that were loaded, and why others were not."""

    name: str
    modules: tuple[str, ...]
    faults: tuple[str, ...]


PACKAGES: Kind[Package] = Kind("packages", value=Package)


def packages(registry: Registry) -> Iterator[Offer[Package]]:
    """What there is of distributions, each as an offer of itself."""
    versions = {each.distribution: each.version for each in (*registry.plugins, *registry.broken)}
    for name, version in sorted(versions.items()):
        modules = tuple(source.load().__name__ for source in registry.plugins if source.distribution == name)
        faults = tuple(f"{each.name}: {each.reason}" for each in registry.broken if each.distribution == name)
        yield Offer(Package(name, modules, faults), name, version)


def is_found(offer: Offer[Package], rig: Rig) -> None:
    """Every plugin and everything that it offers can be used."""
    faults = offer.value.faults
    require(not faults, "load", "; ".join(faults))


def imports_nothing_heavy(offer: Offer[Package], rig: Rig) -> None:
    """Listing what it offers imports no framework: those belong inside functions."""
    found = _imported(offer, rig)
    require(
        not found.heavy, "import", f"it imports {', '.join(found.heavy)}; import them inside the functions that work"
    )


def imports_quickly(offer: Offer[Package], rig: Rig) -> None:
    """Importing none of its modules takes longer than importing the engine; the quickest of five processes counts."""
    found = _imported(offer, rig)
    for _ in range(TURNS - 1):
        if found.module_s > MOST * found.engine_s:
            found = min(found, _import(offer), key=lambda each: each.module_s / each.engine_s)
    times = f"{found.slowest} takes {found.module_s:.2f} s, and the engine {found.engine_s:.2f} s"
    require(found.module_s <= MOST * found.engine_s, "import", f"{times}; do such work inside functions")


def is_quiet_when_imported(offer: Offer[Package], rig: Rig) -> None:
    """Nothing is asked of the network and no file is written when it is listed."""
    found = _imported(offer, rig)
    require(not found.network, "network", f"importing it reaches for {', '.join(found.network)}")
    require(not found.written, "files", f"importing it writes {', '.join(found.written)}")


def _imported(offer: Offer[Package], rig: Rig) -> Imported:
    return rig.once("imported", offer, lambda: _import(offer))


def _import(offer: Offer[Package]) -> Imported:
    try:
        found = imported(offer.value.modules)
    except subprocess.TimeoutExpired as cause:
        raise PluginError(f"import: its modules do not come in {cause.timeout:g} s") from cause
    require(not found.error, "import", found.error)
    return found
