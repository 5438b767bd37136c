"""The wheel: five packages, their data, and no clash with users' own `engine.py` and `plugins/`."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"edgewright", "edgewright_plugins", "edgewright_exporters", "edgewright_runtime", "edgewright_devices"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


def test_it_holds_the_five_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert any(name.endswith("profiles/raspberry-pi-5.toml") for name in names)
    assert any(name.endswith("prior.json") for name in names)
    assert not any("__pycache__" in name or name.endswith(".npz") for name in names)


def test_users_own_files_of_the_same_names_are_left_alone(wheel, tmp_path):
    """DeiT-style training code has an engine.py of its own, and imports it."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    (tmp_path / "mine" / "plugins").mkdir(parents=True)
    (tmp_path / "mine" / "plugins" / "__init__.py").write_text("raise RuntimeError('the user own plugins')")
    (tmp_path / "mine" / "engine.py").write_text("def train_one_epoch():\n    return 'trained'\n")
    code = (
        f"import sys; sys.path.insert(1, {str(site)!r})\n"
        "from engine import train_one_epoch\n"
        "assert train_one_epoch() == 'trained'\n"
        "import edgewright\n"
        f"assert edgewright.__file__.startswith({str(site)!r}), edgewright.__file__\n"
        "from edgewright.cli import main\n"
        "main(['targets'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "mine", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "raspberry-pi-5" in done.stdout
