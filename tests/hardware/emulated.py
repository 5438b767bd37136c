"""An emulated device that is on: an aarch64 Debian in namespaces of its own with a home in memory.

So several run side by side from one system, and nothing of them outlives the process that started them.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from edgewright.errors import RefusedError
from systems import Installed
from userland import ENTER, PI_4, Board, run_tool

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
for place in home/pi/.edgewright data/local/tmp/edgewright; do
  (umask 0; mkdir -p "$ROOT/pycache/$place/site" "$ROOT/pycache/$place/sites" "$ROOT/pycache/$place/agents")
  for folder in agents ${NEW:+site sites}; do mount -t tmpfs -o mode=777 tmpfs "$ROOT/pycache/$place/$folder"; done
done
"""
"""What is made in the device before its system is closed for writing.

What Python compiles is kept for all devices, but for what one is sent: others have other files by the same names.
"""


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
            "NEW": "" if self._ready else "yes",
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
    until(lambda: os.readlink(f"/proc/{pid}/ns/user") != ours, "no namespace was made")
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text("0 0 65536\n")


def until(ready: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait until that comes true. Raises: RefusedError with `what` is missing where it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError):
            if ready():
                return
        time.sleep(0.05)
    raise RefusedError(f"no emulated device answers here: {what}")
