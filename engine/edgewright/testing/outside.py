"""Checks of what an offer does beside its work: what the other checks saw it do to the network and to files."""

from __future__ import annotations

from typing import Any

from edgewright.testing.rig import Rig
from edgewright.testing.verdicts import require
from edgewright.types import Offer


def stays_off_the_network(offer: Offer[Any], rig: Rig) -> None:
    """While it was checked, it looked up no name and opened no connection; what belongs to a user stays here."""
    hosts = list(dict.fromkeys(rig.seen(offer).network))
    require(not hosts, "network", f"it reaches for {', '.join(hosts)}")


def writes_where_it_may(offer: Offer[Any], rig: Rig) -> None:
    """While it was checked, it wrote into the cache and the folder for temporary files alone."""
    written = rig.seen(offer).written
    told = f"it writes {', '.join(written[:3])}; use context.scratch, context.folder or tempfile"
    require(not written, "files", told)
