"""What `engine plugin new` writes passes everything that its own CI runs, unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.registry import Registry
from edgewright.scaffold import LONGEST, create, kinds


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package of each kind."""
    folder = tmp_path_factory.mktemp("made")
    for noun in kinds():
        create(f"my-{noun}", noun, folder, Registry(only=()))
    return folder


def run(command: list[str], folder: Path, **variables: str) -> None:
    """In that folder. Fails with what the command said."""
    done = subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_installs_and_passes_its_own_tests(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    packages = [f"./my-{noun}" for noun in kinds()]
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(tmp_path)]
    run([sys.executable, "-m", "pip", "install", *options, *packages], made)
    arguments = ["-q", "-W", "error", "--import-mode=importlib", "-p", "no:cacheprovider"]
    run([sys.executable, "-m", "pytest", *arguments, *packages], made, PYTHONPATH=str(tmp_path))


def test_every_package_passes_its_own_linters(made: Path) -> None:
    registry = Registry(only=())
    for noun in kinds():
        # What tools make of a line depends on its length, and so on the name.
        create(f"{noun}-of-as-many-letters-as-there-may-be"[:LONGEST].strip("-"), noun, made, registry)
        create(f"{noun[0]}{len(noun)}", noun, made, registry)
    folders = sorted(str(each) for each in made.iterdir())
    run([sys.executable, "-m", "ruff", "format", "--check", "--no-cache", *folders], made)
    run([sys.executable, "-m", "ruff", "check", "--no-cache", *folders], made)
    code = [str(made / f"my-{noun}" / f"my_{noun}") for noun in kinds()]
    run([sys.executable, "-m", "pyright", "--pythonpath", sys.executable, *code], made)
