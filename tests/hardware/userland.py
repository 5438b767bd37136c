"""An aarch64 Debian under user-mode QEMU, as close to a Raspberry Pi as a machine of another kind gets.

Programs run in namespaces of their own (users, mounts, processes) and end with the call that started them. QEMU is
registered in there alone, which Linux allows since 6.7; the host is left as it was. Speed means nothing in here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import RefusedError

TOOLS = {
    "qemu-aarch64-static": "qemu-user-static",
    "mmdebstrap": "mmdebstrap",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "unshare": "util-linux",
}
"""Programs of the host, and the packages that bring them."""

MOST_SECONDS = 180
"""For one step of making it: a mirror may not answer."""

PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")

CORE = """processor\t: {core}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3

"""

NAMESPACES = ("unshare", "--map-root-user", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child")
ENTER = Path(__file__).with_name("enter.sh")


@dataclass(frozen=True)
class Board:
    """A processor that QEMU emulates, and what Linux says of it on the board."""

    name: str
    cpu: str
    part: str
    model: str
    features: str

    @property
    def cpuinfo(self) -> str:
        """The file that the board has in /proc, with the host's number of cores.

        At the host's own some versions of ONNX Runtime crash, and at one with fewer cores than /sys has it hangs.
        """
        cores = range(os.cpu_count() or 1)
        return "".join(CORE.format(core=core, features=self.features, part=self.part) for core in cores) + (
            f"Model\t\t: {self.model}\n"
        )


PI_4 = Board("raspberry-pi-4", "cortex-a72", "0xd08", "Raspberry Pi 4 Model B Rev 1.1", "fp asimd evtstrm crc32 cpuid")
PI_5 = Board(
    "raspberry-pi-5",
    "cortex-a76",
    "0xd0b",
    "Raspberry Pi 5 Model B Rev 1.0",
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
)
BOARDS = (PI_4, PI_5)


@dataclass(frozen=True)
class Userland:
    """The system's root folder; for each runtime its packages, and where compiled Python is kept."""

    root: Path
    sites: Mapping[str, Path]
    pycaches: Mapping[str, Path]

    def run(
        self, command: Sequence[str], board: Board, job: Path, *, runtime: str = "onnxruntime", seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the folder `job`, which lies at /job in there; nothing of it is left afterwards.

        Python finds the packages of `runtime` alone, and an `agent.pyz` in the folder.
        """
        with tempfile.NamedTemporaryFile("w") as cpuinfo:
            cpuinfo.write(board.cpuinfo)
            cpuinfo.flush()
            places = {
                "ROOT": self.root,
                "SITE": self.sites[runtime],
                "PYCACHE": self.pycaches[runtime],
                "JOB": job,
                "CPUINFO": cpuinfo.name,
            }
            return self._entered(command, {**places, "QEMU_CPU": board.cpu}, seconds)

    def _entered(
        self, command: Sequence[str], settings: Mapping[str, str | Path], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*NAMESPACES, "sh", str(ENTER), *command],
            env={"PATH": os.environ["PATH"], **{key: str(value) for key, value in settings.items()}},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def check(self) -> None:
        """Raises: RefusedError when nothing starts in there."""
        with tempfile.TemporaryDirectory() as job:
            done = self.run(["uname", "-m"], PI_4, Path(job))
        if done.stdout.strip() != "aarch64":
            said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            raise RefusedError(
                f"no emulated aarch64 system starts here (Linux 6.7 and the right to make namespaces): {said}"
            )


@contextmanager
def locked(cache: Path, what: str) -> Generator[None]:
    """The folder, made if need be, for one process at a time that makes that."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / f".{what}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(tools: Mapping[str, str]) -> None:
    """Install the packages of those programs that this host lacks. Raises: RefusedError where that cannot be."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise RefusedError("an emulated aarch64 system needs Linux and root")
    missing = " ".join(package for tool, package in tools.items() if not shutil.which(tool))
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise RefusedError(f"an emulated aarch64 system needs {missing}, and there is no apt-get to install it")
    run_tool("apt-get", "-q", "update")
    run_tool("apt-get", "-q", "install", "-y", "--no-install-recommends", *missing.split())


def make_root(place: Path, suite: str, packages: Sequence[str]) -> None:
    """Packages are unpacked and not configured, so no program of theirs runs."""
    about = ("--format", "$(REPO_URI)", "Created-By: Packages", "Component: main")
    mirrors = [uri for uri in run_tool("apt-get", "indextargets", *about).splitlines() if "security" not in uri]
    if not mirrors:
        raise RefusedError("apt has no mirror of Debian in its sources to take an aarch64 system from")
    chosen = ("--architectures=arm64", "--variant=extract", f"--include={','.join(packages)}")
    run_tool("mmdebstrap", "--quiet", *chosen, suite, str(place), mirrors[0])
    for folder in ("proc", "sys", "dev", "tmp", "site", "pycache", "job"):
        (place / folder).mkdir(exist_ok=True)


def make_site(place: Path, python: str, wheels: Sequence[str]) -> None:
    """Wheels for the device are unpacked by the host's pip; each runtime needs nothing else to run a graph."""
    platforms = [f"--platform={name}_aarch64" for name in PLATFORMS]
    pip = (sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-compile")
    device = (f"--python-version={python}", "--implementation=cp", "--only-binary=:all:")
    run_tool(*pip, *device, *platforms, "--target", str(place), *wheels)


def kept(cache: Path, name: str, about: Sequence[str], make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made once, in one step; who asks meanwhile waits."""
    place = cache / f"{name}-{hashlib.sha256(repr(about).encode()).hexdigest()[:12]}"
    with locked(cache, name):
        if place.exists():
            return place
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as scratch:
            make(Path(scratch) / name)
            os.rename(Path(scratch) / name, place)
    return place


def run_tool(*command: str) -> str:
    """What a program of the host says. Raises: RefusedError when it fails, or takes too long."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, timeout=MOST_SECONDS
        )
    except subprocess.TimeoutExpired as late:
        raise RefusedError(f"an emulated aarch64 system cannot be made: {late}") from late
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise RefusedError(f"an emulated aarch64 system cannot be made, because {command[0]} failed: {said}")
    return done.stdout
