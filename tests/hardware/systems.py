"""The systems that emulated devices run, made once and kept in the user's cache: releases of Debian for aarch64."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import userland
from userland import Userland, install, kept, locked, make_root, make_site

TOOLS = {
    **userland.TOOLS,
    "adb": "adb",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
    "setpriv": "util-linux",
    "nsenter": "util-linux",
    "pgrep": "procps",
}

USERS = """root:x:0:0::/root:/bin/sh
nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
pi:x:1000:1000::/home/pi:/bin/sh
"""
GROUPS = "root:x:0:\nnogroup:x:65534:\npi:x:1000:\n"
SHADOW = "root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\npi:*:19000:0:99999:7:::\n"


@dataclass(frozen=True)
class System:
    """A release of Debian, its Python, and the newest packages that both of them run."""

    suite: str
    python: str
    packages: Sequence[str]
    wheels: Sequence[str]


COMMON = ("base-files", "libc-bin", "dash", "coreutils", "tar", "grep", "sed", "findutils", "procps", "util-linux")
RUN = ("libstdc++6", "libgomp1", "python3", "openssh-server")
TVM = (
    "numpy==2.2.6",
    "apache-tvm==0.27.0.post1",
    "apache-tvm-ffi==0.1.14.post0",
    "ml-dtypes==0.5.4",
    "typing-extensions==4.15.0",
)
"""What it needs from Python's index to run a model, and no more."""

NOT_FOR_DEVICES = ("tvm/lib/libtvm_compiler.so", "tvm/lib/libtvm_runtime_cuda.so")
"""What is left out: TVM's compiler, 240 MB, and a runtime for processors that the boards lack."""

TRIXIE = System("trixie", "3.13", (*COMMON, *RUN, "adbd"), ("numpy==2.2.6", "onnxruntime==1.23.2"))
BULLSEYE = System("bullseye", "3.9", (*COMMON, *RUN), ("numpy==2.0.2", "onnxruntime==1.19.2"))


@dataclass(frozen=True)
class Installed:
    """A system in the cache: its root folder, the packages for its Python, and where compiled Python is kept."""

    system: System
    root: Path
    site: Path
    pycache: Path


def installed(system: System, cache: Path) -> Installed:
    """The system, made in `cache` where it is not there yet. Raises: RefusedError with the reason why it cannot be."""
    with locked(cache, "tools"):
        install(TOOLS)
    name = system.suite
    with ThreadPoolExecutor() as pool:
        root = pool.submit(kept, cache, f"root-{name}", system.packages, partial(_make_root, system))
        site = pool.submit(kept, cache, f"site-{name}", system.wheels, partial(_make_site, system))
        pycache = pool.submit(kept, cache, f"pycache-{name}", system.wheels, _make_pycache)
        return Installed(system, root.result(), site.result(), pycache.result())


def runtimes(system: Installed, cache: Path) -> Userland:
    """The same system with one runtime or the other. Raises: RefusedError as `installed` does."""
    tvm = kept(cache, "site-tvm", TVM, partial(_make_tvm, system.system))
    pycache = kept(cache, "pycache-tvm", TVM, _make_pycache)
    found = Userland(
        system.root, {"onnxruntime": system.site, "tvm": tvm}, {"onnxruntime": system.pycache, "tvm": pycache}
    )
    found.check()
    return found


def _make_root(system: System, place: Path) -> None:
    make_root(place, system.suite, system.packages)
    for name, text in (("passwd", USERS), ("group", GROUPS), ("shadow", SHADOW), ("hosts", "127.0.0.1 localhost\n")):
        (place / "etc" / name).write_text(text)
    for name in ("home", "data", "run", "root"):
        (place / name).mkdir(exist_ok=True)


def _make_site(system: System, place: Path) -> None:
    make_site(place, system.python, system.wheels)


def _make_tvm(system: System, place: Path) -> None:
    make_site(place, system.python, TVM)
    for name in NOT_FOR_DEVICES:
        (place / name).unlink(missing_ok=True)


def _make_pycache(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)
