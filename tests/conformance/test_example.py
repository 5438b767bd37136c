"""The example package: installed from its own files, found, and used by a whole deploy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgewright.testing import Rig

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "edgewright-acme"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the example was installed, without network and without touching this environment."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(EXAMPLE)], check=True, capture_output=True)
    return folder


CRASHING = """
from edgewright_acme.prune import AcmePrune

EDGEWRIGHT_API = 1

class Crash(AcmePrune):
    name = "crash"

    def apply(self, model, params, context):
        return 1 / 0

def edgewright_transforms():
    return (Crash(),)
"""


def engine(arguments: Sequence[str], site: Path, work: Path) -> subprocess.CompletedProcess[str]:
    """What the command gives back, in a process of its own that sees the plugins of `site`."""
    command = [sys.executable, "-c", "from edgewright.cli import main; main()", *arguments, "--json"]
    surroundings = {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(work / "cache")}
    return subprocess.run(command, capture_output=True, text=True, cwd=work, env=surroundings, check=False)


def deploy(method: str, site: Path, work: Path, rig: Rig) -> subprocess.CompletedProcess[str]:
    """The small convolutional net, for the example's board."""
    asked = ["--target", "acme-board", "--apply", method, "--task", str(rig.folder / "conv.npz")]
    bounds = ["--max-drop", "off", "--out", str(work / "bundle")]
    return engine(["deploy", rig.sources["conv"], *asked, *bounds], site, work)


def test_it_is_listed(site: Path, tmp_path: Path) -> None:
    document = json.loads(engine(["plugins"], site, tmp_path).stdout)
    assert {"name": "acme", "distribution": "edgewright-acme", "version": "0.3"} in document["plugins"]
    assert {"name": "acme-prune", "plugin": "edgewright-acme 0.3"} in document["offers"]["transforms"]
    assert {"name": "acme-board", "plugin": "edgewright-acme 0.3"} in document["offers"]["targets"]
    assert [broken for broken in document["broken"] if broken["distribution"] == "edgewright-acme"] == []


def test_it_takes_part_in_a_deploy(site: Path, tmp_path: Path, rig: Rig) -> None:
    done = deploy("acme-prune:share=0.3", site, tmp_path, rig)
    assert done.returncode == 0, done.stderr
    [step] = json.loads(done.stdout)["steps"]
    assert (step["name"], step["plugin"]) == ("acme-prune", "edgewright-acme 0.3")
    assert step["params"] == {"share": 0.3}
    assert (tmp_path / "bundle" / "manifest.json").is_file()


def test_a_crash_names_plugin_step_model_and_target(site: Path, tmp_path: Path, rig: Rig) -> None:
    crashing = tmp_path / "site"
    shutil.copytree(site, crashing)
    (crashing / "bolt.py").write_text(CRASHING)
    info = crashing / "edgewright_bolt-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgewright-bolt\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[edgewright]\nbolt = bolt\n")
    done = deploy("crash", crashing, tmp_path, rig)
    assert done.returncode == 1
    sentence = (
        "edgewright-bolt 0.1 failed while applying 'crash' to conv for acme-board: ZeroDivisionError: division by zero"
    )
    assert sentence in done.stderr
    assert not (tmp_path / "bundle").exists()
