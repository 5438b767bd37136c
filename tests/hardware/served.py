"""Emulated devices that answer as real ones do: an OpenSSH server on a port of this host, or Android's adbd.

Each is an aarch64 Debian in namespaces of its own with a home in memory, so several run side by side from one system,
and nothing of them outlives the process that started them.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import userland
from edgewright.errors import RefusedError
from userland import ENTER, PI_4, Board, install, kept, locked, make_root, make_site, run_tool

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

SSHD = """Port {port}
ListenAddress 127.0.0.1
HostKey /run/host_key
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
MaxStartups 50
MaxSessions 50
SetEnv QEMU_CPU={cpu} PYTHONPYCACHEPREFIX=/pycache LANG=C.UTF-8
"""

CLIENT = """Host {name}
  HostName 127.0.0.1
  Port {port}
  User pi
  IdentityFile {folder}/key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
"""

PREPARE = """
for folder in home data run root; do mkdir -p "$ROOT/$folder"; mount -t tmpfs -o mode=755 tmpfs "$ROOT/$folder"; done
mkdir -p "$ROOT/run/sshd" "$ROOT/home/pi/.ssh" "$ROOT/data/local/tmp" "$ROOT/data/misc/adb"
cp "$FILES/sshd_config" "$FILES/host_key" "$ROOT/run/"; chmod 600 "$ROOT/run/host_key"
cp "$FILES/key.pub" "$ROOT/home/pi/.ssh/authorized_keys"; chmod 700 "$ROOT/home/pi" "$ROOT/home/pi/.ssh"
if [ -n "$READY" ]; then mkdir -p "$ROOT/home/pi/.edgewright/site" "$ROOT/data/local/tmp/edgewright/site"; fi
chown -R 1000:1000 "$ROOT/home/pi"
if [ -n "$READY" ]; then
  mount --bind -o ro "$READY" "$ROOT/home/pi/.edgewright/site"
  mount --bind -o ro "$READY" "$ROOT/data/local/tmp/edgewright/site"
fi
"""
"""What is made in the device before its system is closed for writing."""


@dataclass(frozen=True)
class System:
    """A release of Debian, its Python, and the newest packages that both of them run."""

    suite: str
    python: str
    packages: Sequence[str]
    wheels: Sequence[str]


COMMON = ("base-files", "libc-bin", "dash", "coreutils", "tar", "grep", "sed", "findutils", "procps", "util-linux")
RUN = ("libstdc++6", "libgomp1", "python3", "openssh-server")
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
    install(TOOLS)
    with locked(cache):
        root = kept(cache, f"served-{system.suite}", system.packages, lambda place: _make_root(system, place))
        site = kept(cache, f"served-site-{system.suite}", system.wheels, lambda place: _make_site(system, place))
        pycache = kept(cache, f"served-pycache-{system.suite}", system.wheels, _make_pycache)
    return Installed(system, root, site, pycache)


def _make_root(system: System, place: Path) -> None:
    make_root(place, system.suite, system.packages)
    for name, text in (("passwd", USERS), ("group", GROUPS), ("shadow", SHADOW), ("hosts", "127.0.0.1 localhost\n")):
        (place / "etc" / name).write_text(text)
    for name in ("home", "data", "run", "root"):
        (place / name).mkdir(exist_ok=True)


def _make_site(system: System, place: Path) -> None:
    make_site(place, system.python, system.wheels)


def _make_pycache(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)


# ------------------------------------------------------------------ a device that is on


class Served:
    """A device that is on until `stop`."""

    def __init__(self, system: Installed, folder: Path, *, board: Board = PI_4, ready: bool = True) -> None:
        """`folder` is for its keys and settings; `ready` says whether numpy and a runtime lie in our folder there.

        Clients reach it at `address` with `settings` in their environment.
        """
        self.folder = folder
        self.board = board
        self.address = ""
        self.settings: Mapping[str, str] = {}
        self._system = system
        self._ready = ready
        self._processes: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpuinfo").write_text(board.cpuinfo)
        (folder / "prepare").write_text(PREPARE)
        for name in ("key", "host_key"):
            run_tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))

    @property
    def pid(self) -> int:
        """The process whose namespaces are the device's."""
        found = run_tool("pgrep", "-P", str(self._processes[0].pid)).split()
        return int(found[0])

    def inside(self, script: str) -> str:
        """What a shell script of this host's programs says that runs among the device's mounts, as root."""
        return run_tool("nsenter", "-t", str(self.pid), "-m", "-p", "sh", "-c", script)

    def show_sys(self, tree: Path) -> None:
        """Show the files of `tree` as the device's /sys while it runs; what Linux says of the CPUs stays as it is."""
        place = shlex.quote(f"{self.root}/sys")
        self.inside(
            f"mount -t tmpfs tmpfs {place} && cp -a {shlex.quote(str(tree))}/. {place} && "
            f"mkdir -p {place}/devices/system && mount --rbind /sys/devices/system {place}/devices/system"
        )

    def running(self, word: str) -> Sequence[int]:
        """The device's processes with that word in their command, by the number that this host gives them."""
        ours = os.readlink(f"/proc/{self.pid}/ns/pid")
        return [each for each in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is(each, ours, word)]

    @property
    def root(self) -> Path:
        """The device's root folder, as its own mounts have it."""
        return self._system.root

    def stop(self) -> None:
        """Switch it off."""
        for process in reversed(self._processes):
            process.kill()
            process.communicate()

    def boot(self, command: Sequence[str], *, network: bool = False) -> None:
        """Start the device with one program in it."""
        places: Mapping[str, Path | str] = {
            "ROOT": self._system.root,
            "SITE": self._system.site,
            "PYCACHE": self._system.pycache,
            "JOB": self.folder,
            "CPUINFO": self.folder / "cpuinfo",
            "FILES": self.folder,
            "PREPARE": self.folder / "prepare",
            "READY": self._system.site if self._ready else "",
        }
        kinds = ("--user", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child")
        # --kill-child does not survive the moment when the first process gets the rights of its namespace's root
        entered = ("sh", "-c", 'read go; exec setpriv --pdeathsig KILL sh "$@"', "sh", str(ENTER), *command)
        with open(self.folder / "log", "wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", *kinds, *(["--net"] if network else []), *entered],
                env={"PATH": os.environ["PATH"], "QEMU_CPU": self.board.cpu, **{k: str(v) for k, v in places.items()}},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        _map_users(process.pid)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()

    def keep(self, process: subprocess.Popen[bytes]) -> None:
        """End this process with the device."""
        self._processes.append(process)

    def said(self) -> str:
        """The last line of its log."""
        return ((self.folder / "log").read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]


def _is(pid: int, namespace: str, word: str) -> bool:
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return word in command and os.readlink(f"/proc/{pid}/ns/pid") == namespace
    return False


def _map_users(pid: int) -> None:
    """Let every user of the device be the user of that number, which only root may say."""
    ours = os.readlink("/proc/self/ns/user")
    _until(lambda: os.readlink(f"/proc/{pid}/ns/user") != ours, "no namespace was made")
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text("0 0 65536\n")


def _until(ready, what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError):
            if ready():
                return
        time.sleep(0.05)
    raise RefusedError(f"no emulated device answers here: {what}")


def ssh_device(system: Installed, folder: Path, *, name: str = "board", **how: object) -> Served:
    """A device that answers ssh to `name` with the configuration `folder`/ssh_config."""
    device = Served(system, folder, **how)  # pyright: ignore[reportArgumentType]
    device.address, device.settings = f"ssh://{name}", {"EDGEWRIGHT_SSH_CONFIG": str(folder / "ssh_config")}
    port = _free_port()
    (folder / "sshd_config").write_text(SSHD.format(port=port, cpu=device.board.cpu))
    (folder / "ssh_config").write_text(CLIENT.format(name=name, port=port, folder=folder))
    kind, key, *_ = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    device.boot(["/usr/sbin/sshd", "-D", "-e", "-f", "/run/sshd_config"])
    try:
        _until(lambda: _greets(port), "no sshd")
    except RefusedError as silent:
        device.stop()
        raise RefusedError(f"{silent}: {device.said()}") from None
    return device


def _greets(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1) as client:
        return client.recv(4) == b"SSH-"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


ADB_PORT = 7555
"""Not one of those where adb looks for emulators by itself."""


def adb_device(system: Installed, folder: Path, **how: object) -> Served:
    """A device that answers adb behind the server socket `folder`/adb.sock; adbd listens in a network of its own."""
    device = Served(system, folder, **how)  # pyright: ignore[reportArgumentType]
    device.address, device.settings = f"adb://127.0.0.1:{ADB_PORT}", adb_settings(folder)
    (folder / "sshd_config").touch()
    device.boot(["env", "-u", "PYTHONPATH", f"ADBD_PORT={ADB_PORT}", "/usr/sbin/adbd"], network=True)
    try:
        _until(lambda: device.pid and True, "no adbd")
        net = ("nsenter", f"--net=/proc/{device.pid}/ns/net")
        run_tool(*net, "ip", "link", "set", "lo", "up")
        server = ("adb", "-L", f"localfilesystem:{folder}/adb.sock", "server", "nodaemon")
        with open(folder / "adb.log", "wb") as log:
            device.keep(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *net, *server],
                    env={"PATH": os.environ["PATH"], "HOME": str(folder)},
                    stdout=log,
                    stderr=log,
                )
            )
        _until(lambda: _listens(folder / "adb.sock"), "no adb server")  # a client would start another, out of reach
        _until(lambda: _connected(folder), "adb does not connect")
    except RefusedError as silent:
        device.stop()
        raise RefusedError(f"{silent}: {device.said()}") from None
    return device


def adb_settings(folder: Path) -> Mapping[str, str]:
    """How adb's client finds the device's own server."""
    return {"ADB_SERVER_SOCKET": f"localfilesystem:{folder}/adb.sock"}


def _listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
    return True


def _connected(folder: Path) -> bool:
    done = subprocess.run(
        ["adb", "connect", f"127.0.0.1:{ADB_PORT}"],
        env={**os.environ, **adb_settings(folder)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    return "connected to" in done.stdout
