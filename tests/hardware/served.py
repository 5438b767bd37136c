"""Switches emulated devices on that answer as real ones do: sshd on a port of this host, and Android's adbd."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from edgewright.errors import RefusedError
from emulated import Served, until
from systems import Installed
from userland import run_tool

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
        until(lambda: _greets(port), "no sshd")
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
        until(lambda: device.pid and True, "no adbd")
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
        until(lambda: _listens(folder / "adb.sock"), "no adb server")  # a client would start another, out of reach
        until(lambda: _connected(folder), "adb does not connect")
    except RefusedError as silent:
        device.stop()
        raise RefusedError(f"{silent}: {device.said()}") from None
    return device


def without_python(device: Served) -> Served:
    """The device, whose interpreter is no program any more."""
    device.inside(f"mount --bind /dev/null {device.root}/usr/bin/python3")
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
