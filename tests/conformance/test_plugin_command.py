"""`engine plugin test`: a verdict per check, as one document too, and an exit code that CI can use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.errors import RecipeError
from edgewright.scaffold.installed import distribution_of

SHY = """
from edgewright.protocols import NoParams
from edgewright.types import Refusal

EDGEWRIGHT_API = 1

class Shy:
    name, summary, Params = "shy", "refuses everything, and says too little", NoParams
    takes = gives = "onnx"
    needs, reads = "nothing", ()

    def check(self, model, target):
        return Refusal("no")

    def apply(self, model, params, context):
        raise AssertionError("it refuses")

SHY = Shy()

def edgewright_transforms():
    return (SHY,)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an installed plugin, and a package that is not installed."""
    folder, info = tmp_path / "site", tmp_path / "site" / "edgewright_shy-0.1.dist-info"
    info.mkdir(parents=True)
    (folder / "shy.py").write_text(SHY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgewright-shy\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[edgewright]\nshy = shy\n")
    for name in ("edgewright-shy", "edgewright-bold"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    return folder


def test_a_failing_check_is_told_with_its_place_and_fails_the_command(site: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from edgewright.cli import main; main()", "plugin", "test", "edgewright-shy"]
    surroundings = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([*command, "--json"], cwd=tmp_path / "site", env=surroundings, capture_output=True, text=True)
    document = json.loads(done.stdout)
    checks = {each["check"]: each for each in document["checks"]}
    assert (done.returncode, document["kind"], document["distribution"]) == (1, "conformance", "edgewright-shy")
    found = checks["answers before it works"]
    assert (found["status"], found["offer"], found["kind"]) == ("failed", "shy", "transform")
    assert found["reason"] == "check: 'no' is not a sentence"
    assert checks["imports quickly"]["status"] == "passed"
    assert document["failed"] == sum(each["status"] == "failed" for each in checks.values())
    assert document["passed"] + document["skipped"] + document["failed"] == len(document["checks"])


def test_a_plugin_is_meant_by_its_name_or_by_its_folder(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(site)
    assert distribution_of("edgewright_shy") == "edgewright-shy"
    assert distribution_of(str(tmp_path / "edgewright-shy")) == "edgewright-shy"
    with pytest.raises(RecipeError, match="did you mean 'edgewright-shy'"):
        distribution_of("edgewright-shi")
    with pytest.raises(RecipeError, match="edgewright-bold is not installed; run: pip install -e"):
        distribution_of(str(tmp_path / "edgewright-bold"))
