"""Device profiles: the built-in ones are sourced, users' own are checked, the host is probed from its files."""

from __future__ import annotations

import contextlib
import copy
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.asking.targetfile import TABLES, parse_profile, read_profile
from edgewright.errors import TargetError
from edgewright.types import Figure, Target
from edgewright_devices.probe import probe
from edgewright_devices.profiles import FOLDER, built_in, edgewright_targets


def figure(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "source": "data sheet, page 3"}


DOCUMENT: dict[str, Any] = {
    "name": "my-device",
    "title": "My device",
    "isa": "aarch64",
    "memory": figure(2**30, "B"),
    "cores": figure(4, "cores"),
    "bandwidth": figure(12.8, "GB/s"),
    "compute": {"float32": figure(48, "GFLOP/s")},
}


def changed(key: str, value: Any) -> dict[str, Any]:
    """DOCUMENT with `key` (dots go deeper) set to `value`, or removed when it is None."""
    document = copy.deepcopy(DOCUMENT)
    *path, last = key.split(".")
    table = document
    for part in path:
        table = table.setdefault(part, {})
    if value is None:
        del table[last]
    else:
        table[last] = value
    return document


# ------------------------------------------------------------------ built-in


def figures(target: Target) -> list[Figure]:
    return [target.memory, target.bandwidth, target.cores, *target.compute.values(), *target.power.values()]


@pytest.mark.parametrize("target", edgewright_targets(), ids=lambda target: target.name)
def test_every_figure_has_a_unit_and_a_source_that_names_something(target: Target) -> None:
    for item in figures(target):
        assert item.value > 0
        assert item.unit
        assert len(item.source) > 12


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_a_profile_is_named_like_its_file(path: Path) -> None:
    assert read_profile(path).name == path.stem


def test_every_family_has_one_default() -> None:
    defaults = Counter(target.family for target in built_in() if target.default)
    assert defaults == Counter({target.family for target in built_in()})
    named = {target.family: target.name for target in built_in() if target.default}
    assert named == {"jetson": "jetson-orin-nano", "pi": "raspberry-pi-5", "mobile": "snapdragon-8-gen-2"}


def test_jetsons_prefer_tensorrt_and_halves() -> None:
    for target in built_in():
        if target.family == "jetson":
            assert target.unit == "gpu"
            assert target.providers[0] == "TensorrtExecutionProvider"
            assert target.providers[-1] == "CPUExecutionProvider"
            assert target.recipe == ("simplify", "half")


def test_idle_power_is_below_active_power() -> None:
    powered = [target.power for target in built_in() if target.power]
    assert powered
    for power in powered:
        assert power["idle_w"].value < power["active_w"].value


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from edgewright_devices import profiles; from edgewright_devices.predictor import predict;"
        "list(profiles.edgewright_targets());"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------ a user's own


def test_the_smallest_profile() -> None:
    target = parse_profile(DOCUMENT, "my-device.toml")
    assert target.compute["float32"] == Figure(48.0, "GFLOP/s", "data sheet, page 3")
    assert (target.unit, target.runtimes, target.power) == ("cpu", ("ort",), {})


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("bandwith", figure(1, "GB/s"), "unknown key 'bandwith'; allowed: .*did you mean 'bandwidth'"),
        ("compute.float31", figure(1, "GFLOP/s"), "compute: unknown key 'float31'; .*did you mean 'float32'"),
        ("memory.sauce", "x", "memory: unknown key 'sauce'; .*did you mean 'source'"),
        ("bandwidth.source", None, "bandwidth has no source; a figure needs value, unit .GB/s. and source"),
        ("bandwidth.unit", None, "bandwidth has no unit"),
        ("bandwidth.unit", "MB/s", "bandwidth.unit is 'MB/s'; write the figure in GB/s"),
        ("bandwidth.source", " ", "bandwidth.source is ' '; write a text"),
        ("bandwidth.value", -3, "bandwidth.value is -3; write a number above 0"),
        ("bandwidth.value", float("inf"), "bandwidth.value is inf; write a number above 0"),
        ("bandwidth.value", "12", "bandwidth.value is '12'; write a number"),
        ("bandwidth.value", True, "bandwidth.value is True; write a number"),
        ("bandwidth", 12.8, "bandwidth is 12.8; write a table with value, unit and source"),
        ("compute", {}, "compute.float32 is missing"),
        ("compute", None, "compute is missing; a profile needs name, title"),
        ("power.active_w", figure(0, "W"), "power.active_w.value is 0; write a number above 0"),
        ("unit", "gpuu", "unit is 'gpuu'; .*did you mean 'gpu'"),
        ("name", "My Device", "name is 'My Device'; write small letters"),
        ("recipe", "simplify", "recipe is 'simplify'; write a list of texts"),
        ("recipe", ["simplify", 3], "recipe is 3; write a text"),
        ("default", "yes", "default is 'yes'; write true or false"),
        ("title", 5, "title is 5; write a text"),
    ],
)
def test_a_wrong_profile_is_refused_in_one_sentence(key: str, value: Any, sentence: str) -> None:
    with pytest.raises(TargetError, match=f"^my-device.toml: {sentence}") as caught:
        parse_profile(changed(key, value), "my-device.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"name = ", b"\xff\xfe", None])
def test_an_unreadable_file_is_refused(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "my-device.toml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(TargetError, match=r"my-device\.toml cannot be read as a device profile"):
        read_profile(path)


positive = st.floats(min_value=1e-6, max_value=1e15)
words = st.text(st.characters(categories=("L", "N")), min_size=1)


def sourced(unit: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"value": positive, "unit": st.just(unit), "source": words})


def tables(name: str, always: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    optional = {key: sourced(unit) for key, unit in TABLES[name].items() if key not in always}
    return st.fixed_dictionaries(always, optional=optional)


documents = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[a-z0-9]+(-[a-z0-9]+){0,2}", fullmatch=True),
        "title": words,
        "isa": words,
        "memory": sourced("B"),
        "cores": sourced("cores"),
        "bandwidth": sourced("GB/s"),
        "compute": tables("compute", {"float32": sourced("GFLOP/s")}),
    },
    optional={
        "unit": st.sampled_from(["cpu", "gpu"]),
        "power": tables("power", {}),
        "recipe": st.lists(words),
        "default": st.booleans(),
    },
)


@given(documents)
def test_what_is_written_is_what_is_read(document: dict[str, Any]) -> None:
    target = parse_profile(document, "x")
    assert target.name == document["name"]
    assert target.memory == Figure(**document["memory"])
    assert {key: Figure(**value) for key, value in document["compute"].items()} == target.compute
    assert {key: Figure(**value) for key, value in document.get("power", {}).items()} == target.power
    assert target.recipe == tuple(document.get("recipe", Target.recipe))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(documents, st.data())
def test_any_other_content_is_read_or_refused_but_never_crashes(document: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(document)) | st.text(max_size=8))
    document[key] = data.draw(anything)
    with contextlib.suppress(TargetError):
        assert all(item.value > 0 and item.unit and item.source for item in figures(parse_profile(document, "x")))


# ------------------------------------------------------------------ the host

PI = """processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid asimdhp asimddp
processor\t: 1
Features\t: fp asimd evtstrm crc32 cpuid asimdhp asimddp

Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
XEON = "".join(
    f"processor\t: {cpu}\nmodel name\t: Xeon @ 2.50GHz\nphysical id\t: 0\ncore id\t: {cpu // 2}\n"
    "flags\t: sse avx avx2 fma\n\n"
    for cpu in range(4)
)


def host(root: Path, cpuinfo: str, *, max_khz: str = "") -> Target:
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(cpuinfo)
    (root / "proc/meminfo").write_text("MemTotal:        1024 kB\nMemFree: 1 kB\n")
    if max_khz:
        folder = root / "sys/devices/system/cpu/cpu0/cpufreq"
        folder.mkdir(parents=True)
        (folder / "cpuinfo_max_freq").write_text(max_khz + "\n")
    return probe(root)


def test_the_host_is_a_target_with_probed_figures() -> None:
    target = probe()
    assert target.name == "cpu"
    assert set(target.compute) == {"float32", "float16", "int8"}
    assert target.cores.value >= 1
    assert target.memory.value > 2**28
    assert not target.power
    assert all(item.source.startswith(("probed", "assumed")) for item in figures(target))


def test_an_arm_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    target = host(tmp_path, PI, max_khz="2400000")
    cores = target.cores.value
    assert target.title == "this host: Raspberry Pi 5 Model B Rev 1.0"
    assert target.memory.value == 2**20
    assert target.compute["float32"].value == pytest.approx(cores * 2.4 * 16)
    assert target.compute["float16"].value == pytest.approx(cores * 2.4 * 32)
    assert target.compute["int8"].value == pytest.approx(cores * 2.4 * 64)
    assert "SDOT" in target.compute["int8"].source
    assert "cpuinfo_max_freq" in target.compute["int8"].source
    assert target.features == ("asimd", "asimddp", "asimdhp")


def test_two_threads_of_one_core_are_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    target = host(tmp_path, XEON)
    assert target.isa == "x86_64"
    assert target.cores.value == 2
    assert target.compute["float32"].value == pytest.approx(2 * 2.5 * 32)


def test_a_host_that_says_nothing_still_is_a_target(tmp_path: Path) -> None:
    target = probe(tmp_path)
    assert target.memory.source.startswith("assumed")
    assert "assumed" in target.compute["float32"].source
