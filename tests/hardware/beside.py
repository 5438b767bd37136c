"""Emulated programs that share this host's processes and temporary files: what tests one here tests one there."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgewright.protocols import Process
from edgewright_devices.local import LocalLink
from systems import Installed
from userland import ENTER, PI_4

NAMESPACES = ("unshare", "--map-root-user", "--mount", "--propagation=private")


class Beside:
    """A system whose programs are this host's processes: they have its numbers, and end as others do."""

    def __init__(self, system: Installed, folder: Path) -> None:
        """`folder` is for its settings and for what it keeps."""
        self.system = system
        self._folder = folder
        (folder / "cpuinfo").write_text(PI_4.cpuinfo)

    def command(self, *argv: str) -> Sequence[str]:
        """What to start here so that `argv` is started there."""
        places = {
            "ROOT": self.system.root,
            "SITE": self.system.site,
            "PYCACHE": self.system.pycache,
            "JOB": self._folder,
            "CPUINFO": self._folder / "cpuinfo",
            "QEMU_CPU": PI_4.cpu,
            "OPEN": tempfile.gettempdir(),
        }
        stated = [f"{name}={value}" for name, value in places.items()]
        return ["env", *stated, *NAMESPACES, "sh", str(ENTER), "env", "XDG_CACHE_HOME=/job", *argv]

    def program(self, *argv: str) -> Path:
        """A program of this host that starts `argv` there."""
        place = self._folder / Path(argv[0]).name
        place.write_text(f'#!/bin/sh\nexec {shlex.join(self.command(*argv))} "$@"\n')
        place.chmod(0o755)
        return place


class BesideLink(LocalLink):
    """Leads to such a system."""

    def __init__(self, beside: Beside, python: str) -> None:
        """`python` is empty where it is taken to have none."""
        super().__init__()
        self.python = python
        self._beside = beside

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60) -> tuple[int, bytes, bytes]:
        """As a program there."""
        return super().run(self._beside.command(*argv), stdin, timeout)

    def put(self, local: Path, remote: str) -> str:
        """Temporary files are seen there already; others are copied to where they are."""
        if local.is_dir() or Path(tempfile.gettempdir()) in local.parents:
            return super().put(local, remote)
        return str(shutil.copy(local, self.root))

    def start(self, argv: Sequence[str]) -> Process:
        """As a program there."""
        return super().start(self._beside.command(*argv))
