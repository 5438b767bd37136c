"""The far ends that no program here provides: hosts that say nothing, and phones that ask before they talk to adb."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from served import adb_settings

BANNER = b"device::ro.product.name=phone;ro.product.model=Phone;ro.product.device=phone;features=shell_v2,cmd\0"
TOKEN, PUBLIC_KEY = 1, 3
VERSION, MOST_DATA = 0x01000001, 1 << 20


@contextmanager
def listening(*, hangs_up: bool) -> Generator[int]:
    """A port where nothing is ever said."""

    def serve(client: socket.socket) -> None:
        if not hangs_up:
            client.recv(1 << 16)
            client.recv(1 << 16)

    with _served(serve) as port:
        yield port


@contextmanager
def phone(*, allows: bool) -> Generator[int]:
    """A phone at a port: its owner has allowed this host, or has not been asked yet."""

    def serve(client: socket.socket) -> None:
        while True:
            command, first, _, length, _, _ = struct.unpack("<4s5I", _read(client, 24))
            _read(client, length)
            if command == b"CNXN" and allows:
                _send(client, b"CNXN", VERSION, MOST_DATA, BANNER)
            elif command == b"CNXN" or (command == b"AUTH" and first != PUBLIC_KEY):
                _send(client, b"AUTH", TOKEN, 0, os.urandom(20))

    with _served(serve) as port:
        yield port


def _send(client: socket.socket, command: bytes, first: int, second: int, data: bytes) -> None:
    check = int.from_bytes(command, "little") ^ 0xFFFFFFFF
    client.sendall(struct.pack("<4s5I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, check) + data)


def _read(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = client.recv(count - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


@contextmanager
def _served(serve: Callable[[socket.socket], None]) -> Generator[int]:
    """A port of this host whose clients `serve` gets, until the block ends."""
    clients: list[socket.socket] = []

    def one(client: socket.socket) -> None:
        with suppress(OSError):
            serve(client)
        client.close()

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                clients.append(client)
                threading.Thread(target=one, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, args=(server,), daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for client in clients:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
                client.close()
            thread.join()


@dataclass(frozen=True)
class Server:
    """An adb server of our own."""

    settings: Mapping[str, str]

    def connect(self, port: int) -> str:
        """The serial number of what is at that port, now known to the server."""
        serial = f"127.0.0.1:{port}"
        env = {**os.environ, **self.settings}
        subprocess.run(["adb", "connect", serial], env=env, capture_output=True, timeout=30, check=False)
        return serial


@contextmanager
def server(folder: Path) -> Generator[Server]:
    """An adb server in this host's network that knows of no device yet."""
    place = folder / "adb.sock"
    settings = adb_settings(folder)
    with (
        open(folder / "adb.log", "wb") as log,
        subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "adb", "-L", f"localfilesystem:{place}", "server", "nodaemon"],
            env={**os.environ, **settings},
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            while process.poll() is None and not _answers(place):
                time.sleep(0.05)
            yield Server(settings)
        finally:
            process.kill()


def _answers(place: Path) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        return True
    return False
