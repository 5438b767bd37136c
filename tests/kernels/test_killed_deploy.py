"""`engine deploy` with kernels, killed while they are compiled and timed: nothing is left, nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from edgewright.errors import RefusedError
from edgewright.toolchain.ortheader import find_header, headers_place
from kills import kill_when, left_of

pytestmark = pytest.mark.slow

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.onnx"
LEAST = {"*.o": 3, "choices/*.json": 1}
"""Files at which the first run is killed: in the middle of compiling, and in the middle of timing."""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_killed_deploy_leaves_no_process_and_the_next_one_goes_on(tvm: ModuleType, tmp_path: Path):
    try:
        find_header(headers_place())
    except RefusedError as refusal:
        pytest.skip(str(refusal))
    cache, kept = tmp_path / "cache", dict[str, int]()
    about = [
        "deploy",
        str(DIGITS),
        "--target",
        "cpu",
        "--preset",
        "quick:seconds=0.2,rounds=3",
        "--apply",
        "simplify",
        "--seed",
        "0",
    ]
    about += ["--exporter", "onnx,kernels", "--cache", str(cache), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-c", "from edgewright.cli import main; main()", *about]
    for pattern, least in LEAST.items():
        had = kill_when(command, partial(there, cache, pattern, least))
        assert had
        assert not left_of(had)
        found = {**files(cache, "*.o"), **files(cache, "choices/*.json")}
        assert kept.items() <= found.items(), "what the run before had made was made again"
        kept = found
    done = subprocess.run(command, capture_output=True, text=True)
    assert (tmp_path / "out" / "manifest.json").exists(), done.stderr
    assert kept.items() <= {**files(cache, "*.o"), **files(cache, "choices/*.json")}.items()


def there(cache: Path, pattern: str, least: int, pid: int) -> bool:
    return len(files(cache, pattern)) >= least


def files(cache: Path, pattern: str) -> Mapping[str, int]:
    """When each file was written, in nanoseconds."""
    return {str(path): path.stat().st_mtime_ns for path in cache.glob(f"kernels/**/{pattern}")}
