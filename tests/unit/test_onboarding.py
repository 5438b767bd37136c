"""What a device tells of itself is understood, whatever it is; which wheels it takes; what is put there, and not."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.environment import Environment
from edgewright.errors import InputError, RefusedError
from edgewright.onboarding import interpreter
from edgewright.onboarding.findings import findings
from edgewright.onboarding.install import prepare, wish_for
from edgewright.onboarding.preflight import (
    Interpreter,
    Package,
    Runner,
    look,
    parse_interpreter,
    parse_probe,
    parse_runner,
)
from edgewright.onboarding.wheels import Kind, NoWheel, platforms, unpack
from edgewright.registry import Registry
from edgewright.store import Store
from edgewright.verbs.preparing import devices
from edgewright_devices.local import LocalLink
from edgewright_devices.sshconfig import hosts
from wheel import make_wheel

EXHAUSTIVE = settings(deadline=None, derandomize=True)

PI = """isa\taarch64
bits\t64
kernel\tLinux 6.6.31
clock\t1796020795
model\tRaspberry Pi 4 Model B Rev 1.1
libc\tglibc 2.36
cores\t4
memory\tMemTotal:        3884360 kB
memory\tMemAvailable:    3324092 kB
cpuinfo\tFeatures\t: fp asimd evtstrm crc32 cpuid
auxv\t 16 2299 17 100 26 0 15 365114367650 0 0
disk\t/dev/mmcblk0p2    30360796 5123456  23950000      18% /
governor\tondemand
khz\t1800000 1800000
vcgencmd\tthrottled=0x50005
zone\t48300 cpu-thermal
cooler\t1 pwm-fan
"""

ORIN = """isa\taarch64
kernel\tLinux 5.15.136-tegra
model\tNVIDIA Jetson Orin Nano Developer Kit
soc\tnvidia,tegra234
release\t# R36 (release), REVISION: 3.0, GCID: 36923193, BOARD: generic, EABI: aarch64
libc\tldd (Ubuntu GLIBC 2.35-0ubuntu3.8) 2.35
auxv\t 16 1048576 26 0 0 0
disk\t/dev/nvme0n1p1 239313084 30123456 197000000 14% /
power_mode\t15W
khz\t1510400 1113600
zone\t49625 gpu-thermal
zone\t-256000 cv0-thermal
zone\t100000 PMIC-Die
zone\t
cooler\t2 cpufreq-cpu0
sensor\tina3221 VDD_IN
sensor\tina3221 VDD_CPU_GPU_CV
sensor\tina3221 VDD_IN
busy\tanna@desk, process 4711
held\t100 160 300 940.25
"""

PHONE = """isa\taarch64\r
model\tPixel 8\r
soc\tTensor G3\r
android\t15\r
disk\t/dev/block/dm-55    112 1 111 1% /data\r
thermalservice\tThermal Status: 2\r
"""


def states(said: str, python: Interpreter | None = None) -> dict[str, str]:
    told = findings(parse_probe(said, python), "ssh://pi", 1796020795.0)
    return {each.what: f"{each.state}: {each.found}" for each in told}


def test_a_raspberry_pi_with_too_weak_a_supply() -> None:
    device = parse_probe(PI)
    assert (device.libc, device.features, device.temperature_c) == (("glibc", "2.36"), ("asimd",), 48.3)
    assert (device.memory_bytes, device.disk_free_bytes) == (3884360 * 1024, 23950000 * 1024)
    assert (device.throttled, device.capped, device.emulation) == ("under-voltage, throttled", False, "")
    told = states(PI)
    assert told["throttled"].startswith("note: under-voltage, throttled")
    assert told["governor"] == "note: ondemand: clocks move while measuring; set `performance`"
    assert told["python"] == "note: none of version 3.9 or newer; the native runner takes its place"
    assert told["native runner"] == "missing: not there yet; run `engine device setup --on ssh://pi`"
    assert told["sensors"] == "note: none of power or energy"


def test_a_jetson_that_is_busy_hot_and_held_back() -> None:
    device = parse_probe(ORIN)
    assert (device.libc, device.temperature_c, device.features) == (("glibc", "2.35"), 49.625, ("asimddp",))
    assert device.sensors == ("ina3221 VDD_IN", "ina3221 VDD_CPU_GPU_CV")
    assert (device.throttled, device.capped, device.power_mode) == ("cpufreq-cpu0 at step 2", True, "15W")
    told = states(ORIN)
    assert told["busy"] == "note: in use by anna@desk, process 4711, for 840 s"
    assert told["int8"].startswith("ok: dot-product")
    assert told["power mode"].startswith("note: 15W")


def test_a_phone_ends_lines_as_terminals_do_and_has_another_c_library() -> None:
    device = parse_probe(PHONE)
    assert (device.model, device.libc, device.throttled) == ("Pixel 8", ("bionic", "15"), "thermal status 2")
    assert states(PHONE)["disk"].startswith("note: 114 kB free; ")


@pytest.mark.parametrize(
    ("said", "libc"),
    [
        ("musl libc (aarch64) Version 1.2.4 ", ("musl", "1.2")),
        ("ldd (Debian GLIBC 2.31-13+deb11u11) 2.31 ", ("glibc", "2.31")),
        ("glibc 2.41", ("glibc", "2.41")),
        ("", ("", "")),
    ],
)
def test_every_way_in_which_a_c_library_tells_its_version(said: str, libc: tuple[str, str]) -> None:
    assert parse_probe(f"isa\taarch64\nlibc\t{said}\n").libc == libc


def test_emulation_of_every_kind_is_seen() -> None:
    for sign in (
        "program\tqemu-aarch64-static",
        "interpreted\tyes",
        "virtual\t1",
        "cpuinfo\tvendor_id\t: AuthenticAMD",
    ):
        assert parse_probe(f"isa\taarch64\n{sign}\n").emulation
    assert not parse_probe("isa\tx86_64\nprogram\tbash\ncpuinfo\tvendor_id\t: AuthenticAMD\n").emulation


def test_a_system_of_32_bits_is_not_taken_for_its_kernel() -> None:
    assert parse_probe("isa\taarch64\nbits\t32\n").isa == "armv8l"
    assert states("isa\taarch64\nbits\t32\n")["64 bits"].startswith("missing: armv8l")


@given(said=st.text(max_size=200))
@EXHAUSTIVE
def test_whatever_a_shell_says_is_read_or_refused(said: str) -> None:
    assert parse_probe(f"isa\taarch64\n{said}").isa
    for key in ("zone", "disk", "khz", "auxv", "memory", "vcgencmd", "cooler", "mark", "libc"):
        parse_probe(f"isa\taarch64\n{key}\t{said}")


def test_this_host_tells_what_its_agent_would() -> None:
    from edgewright_runtime.device import find_device

    link, device = LocalLink(), find_device()
    try:
        seen = look(link)
    finally:
        link.close()
    assert (seen.isa, seen.features) == (device.isa, device.features)
    assert seen.memory_bytes == device.memory_bytes
    assert seen.disk_free_bytes is not None
    assert " ".join(seen.libc) == device.libc


# ------------------------------------------------------------------ imports


def test_an_import_that_kills_its_process_is_told_by_the_signal(tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    (tmp_path / "broken.py").write_text("import nothing_like_that\n")
    (tmp_path / "sound.py").write_text("__version__ = '3'\nprint('hello')\n")
    told = interpreter.attempt(("sound", "deadly", "absent", "broken"), [str(tmp_path)])
    assert told["sound"] == {"version": "3", "providers": [], "file": str(tmp_path / "sound.py")}
    assert told["deadly"] == {"trouble": "its import is ended by SIGILL"}
    assert told["absent"] == {"trouble": ""}
    assert "nothing_like_that" in told["broken"]["trouble"]


def test_an_import_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "IMPORT_S", 1)
    (tmp_path / "endless.py").write_text("while True: pass\n")
    assert interpreter.attempt(("endless",), [str(tmp_path)]) == {
        "endless": {"trouble": "its import did not end within 1 s"}
    }


@pytest.mark.parametrize(
    ("told", "status", "errors", "found"),
    [
        ([], 139, "", Runner(trouble="it is ended by SIGSEGV")),
        ([], 1, "x: version `GLIBC_2.34' not found", Runner(trouble="x: version `GLIBC_2.34' not found")),
        ([], 126, "", Runner(trouble="it ended with 126")),
        (
            ['{"libc":"glibc 2.31","version":"1.23.2","file":"/lib/o.so","trouble":"","providers":["CPU"]}'],
            0,
            "",
            Runner(Package("1.23.2", "", ("CPU",), "/lib/o.so"), ("glibc", "2.31")),
        ),
        (
            ['{"libc":"bionic","version":"","file":"","trouble":"none"}'],
            0,
            "",
            Runner(Package(trouble="none"), ("bionic", "")),
        ),
    ],
)
def test_what_the_native_runner_tells(told: list[str], status: int, errors: str, found: Runner) -> None:
    assert parse_runner(told, status, errors) == found


def test_a_runner_that_finds_no_library_is_told() -> None:
    runner = Runner(Package(trouble="there is none"), ("glibc", "2.31"))
    told = {f.what: f for f in findings(replace(parse_probe(PI), runner=runner), "ssh://pi", 0.0)}
    assert (told["native runner"].state, told["native runner"].found) == ("ok", "starts on glibc 2.31")
    assert told["onnxruntime"].found == "there is none; run `engine device setup --on ssh://pi`"


def test_what_python_tells_is_read_from_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    interpreter.main("/none", "/none", "numpy")
    told = parse_interpreter(f"a library says hello\n{capsys.readouterr().out}")
    assert told.abi == f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert told.own["numpy"].works
    assert told.found == told.own


# ------------------------------------------------------------------ wheels


@given(isa=st.sampled_from(("aarch64", "x86_64", "armv7l")), minor=st.integers(17, 60))
@EXHAUSTIVE
def test_every_older_platform_is_named_and_none_that_is_newer(isa: str, minor: int) -> None:
    tags = platforms(isa, ("glibc", f"2.{minor}"))
    assert tags[0] == f"manylinux_2_{minor}_{isa}"
    assert {f"manylinux_2_{older}_{isa}" for older in range(17, minor + 1)} | {f"manylinux2014_{isa}"} <= set(tags)
    assert f"manylinux_2_{minor + 1}_{isa}" not in tags
    assert (f"manylinux1_{isa}" in tags) == (isa == "x86_64")
    assert len(set(tags)) == len(tags)


@given(minor=st.integers(17, 60))
@EXHAUSTIVE
def test_wheels_are_those_that_pip_itself_would_take_there(minor: int) -> None:
    from packaging.tags import Tag, cpython_tags

    tags = platforms("aarch64", ("glibc", f"2.{minor}"))
    taken = set(cpython_tags((3, 13), ["cp313"], tags))
    assert (Tag("cp313", "cp313", "manylinux_2_28_aarch64") in taken) == (minor >= 28)
    assert Tag("cp313", "cp313", "manylinux2014_aarch64") in taken


def test_musl_has_tags_of_its_own_and_other_c_libraries_none() -> None:
    assert platforms("aarch64", ("musl", "1.2")) == tuple(f"musllinux_1_{minor}_aarch64" for minor in (2, 1, 0))
    for libc in (("bionic", "15"), ("", ""), ("glibc", "2.12"), ("glibc", "")):
        with pytest.raises(RefusedError, match="no wheels are made for"):
            platforms("aarch64", libc)


KIND = Kind("3.13", "cp313", platforms("aarch64", ("glibc", "2.31")))


def test_a_wheel_is_unpacked_once_and_anew_when_it_changes(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    wheel = make_wheel(tmp_path, "acme_meter", "1.0", "UNIT = 'W'\n")
    first = unpack([str(wheel)], KIND, store)
    assert (first.versions, first.size > 0) == ({"acme-meter": "1.0"}, True)
    assert (first.place / "packages" / "acme_meter.py").read_text() == "UNIT = 'W'\n"
    assert not [path for path in (first.place / "packages").rglob("*") if path.name == "direct_url.json"]
    assert unpack([str(wheel)], KIND, store) == first
    make_wheel(tmp_path, "acme_meter", "1.0", "UNIT = 'mW'\n")
    assert unpack([str(wheel)], KIND, store).digest != first.digest


def test_a_wheel_for_another_machine_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "acme_meter", "1.0", "")
    other = wheel.rename(tmp_path / "acme_meter-1.0-cp313-cp313-manylinux_2_35_aarch64.whl")
    with pytest.raises(NoWheel, match=r"Python 3\.13 on manylinux_2_31_aarch64"):
        unpack([str(other)], KIND, Store(tmp_path / "cache"))
    with pytest.raises(InputError, match="names no wheel and no project"):
        unpack([str(tmp_path / "nowhere.whl")], KIND, Store(tmp_path / "cache"))


# ------------------------------------------------------------------ what is wished for


def python(**own: Package) -> Interpreter:
    packages = {name: own.get(name, Package()) for name in ("numpy", "onnxruntime")}
    return Interpreter("cpython", "3.10.12", "cp310", 64, ("glibc", "2.35"), packages, packages)


def test_a_bare_device_gets_the_newest_and_older_ones_where_that_dies() -> None:
    wish = wish_for(python(), ("acme",))
    assert wish.asked == ("numpy", "onnxruntime", "acme")
    assert [choice[1] for choice in wish.choices] == ["onnxruntime", "onnxruntime<1.28", "onnxruntime<1.22"]
    assert all(choice[2:] == ("acme",) for choice in wish.choices)


def test_a_version_that_was_asked_for_is_the_only_choice() -> None:
    assert wish_for(python(), ("onnxruntime==1.23.2",)).choices == (("numpy", "onnxruntime==1.23.2"),)
    wheel = "dist/onnxruntime-1.20.0-cp310-cp310-linux_aarch64.whl"
    assert wish_for(python(), (wheel,)).choices == (("numpy", wheel),)
    assert wish_for(python(), ("numpy<2",)).choices[0] == ("numpy<2", "onnxruntime")


def test_a_runtime_with_more_providers_is_neither_replaced_nor_given_another_numpy() -> None:
    jetpack = Package("1.19.0", providers=("TensorrtExecutionProvider", "CUDAExecutionProvider"))
    wish = wish_for(python(numpy=Package("1.26.4"), onnxruntime=jetpack), ("acme", "numpy==2.0.0"))
    assert (wish.asked, wish.choices) == (("acme",), (("acme",),))
    assert "TensorrtExecutionProvider" in wish.notes[0]
    assert "numpy==2.0.0 was not installed" in wish.notes[1]


def test_a_runtime_made_for_numpy_1_is_first_given_one() -> None:
    broken = python(numpy=Package("2.1.0"), onnxruntime=Package(trouble="ImportError: _ARRAY_API not found"))
    wish = wish_for(broken, ())
    assert wish.choices[:2] == (("numpy<2",), ("numpy", "onnxruntime"))
    assert "_ARRAY_API" in wish.notes[0]


def test_this_machine_is_not_set_up(tmp_path: Path) -> None:
    link = LocalLink()
    try:
        with pytest.raises(RefusedError, match="this machine needs no setup"):
            prepare(link, Store(tmp_path), say=lambda _: None)
    finally:
        link.close()


# ------------------------------------------------------------------ which devices there are


def test_the_hosts_of_an_ssh_configuration_are_its_names_and_no_patterns(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "# Host commented\nHost pi jetson\n  HostName 10.0.0.7\nhost=nano *.lab !gate\nInclude more/*\n"
        'Match host x\nHost *\nHost "quoted" pi\n'
    )
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a").write_text(f"Host deep\nInclude {tmp_path}/config\n")
    assert hosts(tmp_path / "config") == ("pi", "jetson", "nano", "deep", "quoted")
    assert hosts(tmp_path / "nowhere") == ()


def test_hosts_are_listed_only_when_asked_for_and_each_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("Host nobody\n  HostName 127.0.0.1\n  Port 1\n")
    monkeypatch.setenv("EDGEWRIGHT_SSH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    adb = tmp_path / "adb"
    adb.write_text("#!/bin/sh\nprintf 'List of devices attached\\nP8\\tunauthorized\\nX1\\toffline\\n\\n'\n")
    adb.chmod(0o755)
    env = Environment(Registry(), Store(tmp_path / "cache"), lambda *_: None)
    assert {each.address: each.reason.split(";")[0] for each in devices([], env)} == {
        "adb://P8": "it has not allowed this host",
        "adb://X1": "adb calls it offline",
    }
    told = {each.address: each.reason for each in devices([], env, configured=True)}
    assert "nothing listens on its port" in told["ssh://nobody"]
    with pytest.raises(InputError, match="'pi' is no address of a device"):
        devices(["pi"], env)


def test_a_mark_that_is_no_json_counts_as_none() -> None:
    assert parse_probe("isa\taarch64\nmark\t{broken\n").mark == {}
    assert parse_probe("isa\taarch64\nmark\t[1]\n").mark == {}
    assert parse_probe(f"isa\taarch64\nmark\t{json.dumps({'digest': 'a'})}\n").mark == {"digest": "a"}
