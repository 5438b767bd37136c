"""Checks of what an offer is called, and whether a device can import it by name."""

from __future__ import annotations

import importlib
import re
from typing import Any

from edgewright.testing.rig import Rig
from edgewright.testing.verdicts import attempt, require
from edgewright.types import Offer


def has_a_name(offer: Offer[Any], rig: Rig) -> None:
    """A name is kebab-case, so that it can be typed on the command line."""
    name = str(getattr(offer.value, "name", "") or offer.value.scheme)
    kebab = re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) is not None
    require(kebab, "state", f"{name!r} is not kebab-case; write small letters, digits and single hyphens")


def can_be_imported(offer: Offer[Any], rig: Rig) -> None:
    """A device loads runtimes and meters as `module:object`, so the object must be a module's attribute."""
    path, _, name = offer.entry.partition(":")
    require(bool(name), "state", "no module holds the offered object under a name; assign it to one")
    found = attempt("load", lambda: getattr(importlib.import_module(path), name))
    require(found is offer.value, "load", f"{offer.entry} is not the object that is offered")
