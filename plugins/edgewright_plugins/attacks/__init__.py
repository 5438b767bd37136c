"""Attacks on models with exits: what a camera may see by accident, and what somebody may show it on purpose."""

from __future__ import annotations

from collections.abc import Iterable

from edgewright.protocols import Attack
from edgewright_plugins.attacks.blank import Blank
from edgewright_plugins.attacks.blur import Blur
from edgewright_plugins.attacks.noise import Gaussian, Jitter, Uniform
from edgewright_plugins.attacks.slowdown import Slowdown

ATTACKS = (Blank("zeros"), Blank("mean"), Gaussian(), Uniform(), Jitter(), Blur(), Slowdown())


def edgewright_attacks() -> Iterable[Attack]:
    """What this module offers."""
    return ATTACKS
