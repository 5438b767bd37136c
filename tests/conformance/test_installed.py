"""What plugins of others do to the command line: broken ones are listed, good ones change nothing that was there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "examples" / "digits" / "digits.onnx")

BROKEN = {
    "misspelt": ("EDGEWRIGHT_API = 1\ndef edgewright_transfroms():\n    return ()\n", "edgewright_transforms"),
    "outdated": ("EDGEWRIGHT_API = 0\ndef edgewright_targets():\n    return ()\n", "EDGEWRIGHT_API = 1"),
    "absent": ("import a_library_that_is_not_there\n", "a_library_that_is_not_there"),
    "crashing": ("EDGEWRIGHT_API = 1\ndef edgewright_targets():\n    raise RuntimeError('boom')\n", "boom"),
    "halfway": ("EDGEWRIGHT_API = 1\ndef edgewright_transforms():\n    return (object(),)\n", "without"),
    "quitting": ("import sys\nsys.exit('no')\n", "no"),
}

RIVAL = """
import sys
from dataclasses import dataclass, replace
EDGEWRIGHT_API = 1

@dataclass(frozen=True)
class Params:
    pass

class Quantize:
    name, summary, Params = "quantize", "not the built-in one", Params
    takes = gives = "onnx"
    needs, reads = "nothing", ()
    def check(self, model, target):
        return None
    def apply(self, model, params, context):
        raise RuntimeError("the built-in one was asked for")

class Greedy:
    name = "greedy"
    def accepts(self, source):
        return True
    def load(self, source, request):
        raise RuntimeError("the built-in one was asked for")

def edgewright_transforms():
    return (Quantize(),)

def edgewright_loaders():
    return (Greedy(),)

def edgewright_targets():
    from edgewright_devices.profiles import built_in
    mine = next(t for t in built_in() if t.name == "jetson-orin-nano")
    return (replace(mine, title="rival nano"), replace(mine, name="aaa-nano", title="rival family head"))
"""


def install(site: Path, name: str, text: str) -> None:
    """Put a plugin where Python finds installed distributions."""
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text(text)
    info = site / f"{name}-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(f"[edgewright]\n{name} = {name}\n")


def engine(folder: Path, site: Path | None, *argv: str) -> tuple[int, str, str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    command = [sys.executable, "-c", "from edgewright.cli import main; main()", *argv]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def broken_site(tmp_path_factory) -> Path:
    site = tmp_path_factory.mktemp("broken")
    for name, (text, _) in BROKEN.items():
        install(site, name, text)
    for name in ("twin-a", "twin-b"):
        install(site, name.replace("-", "_"), "EDGEWRIGHT_API = 1\ndef edgewright_targets():\n    return ()\n")
        info = site / f"{name.replace('-', '_')}-2.5.dist-info" / "entry_points.txt"
        info.write_text(f"[edgewright]\ntwin = {name.replace('-', '_')}\n")
    return site


def test_every_broken_plugin_is_listed_with_name_version_and_reason(broken_site, tmp_path):
    code, out, _ = engine(tmp_path, broken_site, "plugins", "--json")
    listed = {entry["distribution"]: entry for entry in json.loads(out)["broken"]}
    assert code == 0
    for name, (_, reason) in BROKEN.items():
        assert (listed[name]["version"], reason in listed[name]["reason"]) == ("2.5", True), listed[name]
    assert "twin_b" in listed["twin_a"]["reason"]
    code, out, _ = engine(tmp_path, broken_site, "plugins")
    assert all(f"broken: {name} ({name} 2.5): " in out for name in BROKEN)


@pytest.mark.parametrize(
    "argv",
    [
        ("targets",),
        ("doctor",),
        ("predict", DIGITS, "--target", "pi"),
        ("deploy", DIGITS, "--target", "jetson", "--dry-run"),
    ],
)
def test_no_command_dies_of_a_broken_plugin(broken_site, tmp_path, argv):
    code, _, err = engine(tmp_path, broken_site, *argv)
    assert code == 0, err


COMMANDS = (
    ("targets", "jetson"),
    ("targets", "pi", "--json"),
    ("predict", DIGITS, "--target", "jetson", "--json"),
    ("deploy", DIGITS, "--target", "jetson", "--dry-run", "--json"),
    ("deploy", DIGITS, "--target", "cpu", "--apply", "quantize", "--dry-run", "--json"),
    ("deploy", DIGITS, "--target", "jetson", "--apply", "half", "--out", "out", "--json"),
    ("verify", "nowhere"),
    ("--help",),
)


def test_installing_a_plugin_changes_the_output_of_no_existing_command(tmp_path):
    site = tmp_path / "site"
    install(site, "rival", RIVAL)
    before = [engine(tmp_path, None, *argv) for argv in COMMANDS]
    after = [engine(tmp_path, site, *argv) for argv in COMMANDS]
    assert "rival/quantize" in engine(tmp_path, site, "plugins")[1]
    for argv, was, now in zip(COMMANDS, before, after, strict=True):
        assert (was[0], was[1]) == (now[0], now[1]), argv
