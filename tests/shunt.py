"""A third party's meter for tests: a package that draws 7 W by its own account."""

from __future__ import annotations

from pathlib import Path

NAME, WATTS = "edgewright_shunt", 7

SOURCE = """
import time

from edgewright.types import Source

EDGEWRIGHT_API = 1


class Sampler:
    def __init__(self):
        self.start = time.perf_counter()

    def read(self):
        return ((time.perf_counter() - self.start) * 1e3 * {watts},)


class Shunt:
    name, needs_python = "acme-shunt", True

    def sources(self, device):
        return (Source("shunt", "ACME's bench", "counter", "mJ", 1e-3, 10_000_000),)

    def open(self):
        assert __file__.startswith({carried!r}), __file__
        return Sampler()


SHUNT = Shunt()


def edgewright_meters():
    return (SHUNT,)
"""


def install_shunt(site: Path, carried: str) -> None:
    """Put it into a folder of packages; it is only read where it lies below `carried`."""
    about = site / f"{NAME}-0.1.dist-info"
    for folder in (site / NAME, about):
        folder.mkdir(parents=True)
    (site / NAME / "__init__.py").write_text(SOURCE.format(watts=WATTS, carried=carried))
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: edgewright-shunt\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(f"[edgewright]\nshunt = {NAME}\n")
    (about / "RECORD").write_text(f"{NAME}/__init__.py,,\n{about.name}/METADATA,,\n")
