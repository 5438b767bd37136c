"""What the native runner is built with on this host, and what is said where something is missing."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from edgewright.agents.runnerfile import ANDROID_API, NDK, Machine, find_compiler, needed_glibc
from edgewright.errors import RefusedError
from edgewright.toolchain.compilers import CPP
from edgewright.toolchain.sysroot import Sysroot, _keep_links_inside, find_sysroot  # pyright: ignore[reportPrivateUsage]


def test_a_compiler_that_is_missing_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    other = next(isa for isa in CPP.packages if isa != platform.machine())
    wanted = (
        f"{other} needs a C\\+\\+ compiler, and none is here .*`apt-get install {CPP.packages[other]}` installs one"
    )
    with pytest.raises(RefusedError, match=wanted.replace("g++", "g\\+\\+")):
        find_compiler(Machine(other))
    with pytest.raises(RefusedError, match=r"`apt-get install g\+\+` installs one"):
        find_compiler(Machine(platform.machine()))
    (tmp_path / f"{other}-linux-gnu-g++").touch(0o755)
    assert find_compiler(Machine(other)) == str(tmp_path / f"{other}-linux-gnu-g++")


def test_android_is_built_for_where_an_ndk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NDK, str(tmp_path))
    with pytest.raises(RefusedError, match=f"for Android needs its NDK .*name its folder with {NDK}"):
        find_compiler(Machine("aarch64", android=True))
    place = tmp_path / f"toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android{ANDROID_API}-clang++"
    place.parent.mkdir(parents=True)
    place.touch(0o755)
    assert find_compiler(Machine("aarch64", android=True)) == str(place)


def test_what_a_program_asks_of_glibc(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\0GLIBC_2.17\0glob\0GLIBC_2.27\0GLIBC_2.4\0not GLIBC_2.99\0")
    assert needed_glibc(program) == 27
    program.write_bytes(b"\0static")
    assert needed_glibc(program) == 0


def test_links_of_an_unpacked_system_stay_in_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "lib").mkdir(parents=True)
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib/libdl.so.2").write_text("theirs")
    (root / "usr/lib/libdl.so").symlink_to("/lib/libdl.so.2")
    _keep_links_inside(root)
    assert (root / "usr/lib/libdl.so").read_text() == "theirs"
    root.rename(tmp_path / "moved")
    assert (tmp_path / "moved/usr/lib/libdl.so").read_text() == "theirs"


def test_a_sysroot_is_used_once_it_is_there(tmp_path: Path) -> None:
    assert find_sysroot("aarch64", tmp_path) is None
    (tmp_path / "sysroot-bullseye-aarch64").mkdir()
    assert find_sysroot("aarch64", tmp_path) == Sysroot(tmp_path / "sysroot-bullseye-aarch64", "aarch64-linux-gnu")
