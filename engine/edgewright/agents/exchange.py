"""Arrays and distributions on their way between this host and an agent; what is over there is not sent again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from edgewright.agents.travel import pack
from edgewright.protocol import read_array, write_array
from edgewright.protocols import Link
from edgewright.types import Array, Arrays


class Exchange:
    """What went over one link, and where it lies at its ends."""

    def __init__(self, link: Link, arrays: Path, packed: Path) -> None:
        """`arrays` and `packed` are folders of this host, for arrays and distributions on their way."""
        self._link = link
        self._arrays = arrays
        self._packed = packed
        self._sent: dict[str, str] = {}
        self._carried: dict[str, str] = {}

    @property
    def folder(self) -> str:
        """Where arrays lie on the device."""
        return str(self._link.root / "arrays")

    def send(self, arrays: Arrays) -> dict[str, str]:
        """Where each array lies on the device, once it is there."""
        places: dict[str, str] = {}
        for name, array in arrays.items():
            file = write_array(self._arrays, array)
            if file not in self._sent:
                self._sent[file] = self._link.put(self._arrays / file, f"arrays/{file}")
            places[name] = self._sent[file]
        return places

    def fetch(self, places: Mapping[str, str]) -> Arrays:
        """The arrays that lie there."""
        return {name: self.receive(place) for name, place in places.items()}

    def receive(self, place: str) -> Array:
        """One array."""
        local = self._arrays / Path(place).name
        if not local.exists():
            self._link.get(place, local)
        return read_array(local)

    def carry(self, entries: Iterable[str]) -> list[str]:
        """Where the distributions that offer these (`module:object`) lie on the device, once they are there."""
        for entry in entries:
            if entry and entry not in self._carried:
                folder = pack(entry, self._packed)
                self._carried[entry] = "" if folder is None else self._link.put(folder, f"agents/{folder.name}")
        return [self._carried[entry] for entry in entries if self._carried.get(entry)]
