"""Where the zip application begins: it goes on in a folder beside itself, so that nothing is compiled at every start.

Python keeps what it compiles of a folder, and of no archive. It is the archive's `__main__.py`.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def main() -> int:
    """Serve as the agent."""
    sys.path[0] = sys.argv[0] = unpacked(sys.argv[0])
    from edgewright_runtime import agent

    return agent.main()


def unpacked(archive: str) -> str:
    """A folder beside `archive` with the same in it; `archive` itself where none can be made, or it is one."""
    folder = os.path.splitext(archive)[0]
    if not os.path.isdir(folder):
        _unpack(archive, folder)
    return folder if os.path.isdir(folder) else archive


def _unpack(archive: str, folder: str) -> None:
    import tempfile
    import zipfile

    place = os.path.dirname(archive) or "."
    with suppress(OSError), tempfile.TemporaryDirectory(dir=place) as partial, zipfile.ZipFile(archive) as held:
        held.extractall(os.path.join(partial, "agent"))
        os.replace(os.path.join(partial, "agent"), folder)  # fails where another agent was quicker


if __name__ == "__main__":
    raise SystemExit(main())
