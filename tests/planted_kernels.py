"""Packages of kernels, as `engine plugin new` writes them and an installer leaves them, with one thing made wrong."""

from __future__ import annotations

from pathlib import Path

from edgewright.registry import Registry
from edgewright.scaffold import create, package_of

SMALL = ("((3, 5), (2, 7, 27), (1, 50, 192))", "((3, 5),)")
"""One example is enough where a defect shows everywhere."""


def plant(site: Path, name: str, *changes: tuple[str, str]) -> None:
    """Write the package `name` of version 0.1.0 into `site`; each of `changes` replaces a text by another."""
    create(name, "kernel", site / "written", Registry(only=()))
    package, info = site / package_of(name), site / f"{package_of(name)}-0.1.0.dist-info"
    (site / "written" / name / package_of(name)).rename(package)
    text = (package / "kernel.py").read_text()
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the template"
        text = text.replace(old, new)
    (package / "kernel.py").write_text(text)
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[edgewright]\n{name} = {package_of(name)}\n")
