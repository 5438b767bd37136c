"""Puts on a device what it lacks, and leaves alone what it has."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import DeviceError, RefusedError
from edgewright.onboarding.preflight import PACKAGES, Preflight, examine
from edgewright.onboarding.wheels import platforms, unpacked
from edgewright.protocols import Link
from edgewright.store import Store

SITE = "site"
"""The folder of ours that the agent's Python looks into first."""

MARK = "edgewright.json"
"""In that folder: what it was made of."""

CHECK = "import sys; sys.path.insert(0, sys.argv[1])\nfor name in sys.argv[2:]: __import__(name)"

SWITCH = """cd {root} || exit 1
rm -rf site.old; [ ! -d site ] || mv site site.old || exit 1
mv site.new site || {{ mv site.old site; exit 1; }}
rm -rf site.old
"""


@dataclass(frozen=True)
class Prepared:
    """What was done: the packages that were put there (none when it was ready), and what the device has now."""

    installed: tuple[str, ...]
    kept: tuple[str, ...]
    device: Preflight


def prepare(link: Link, store: Store, versions: Sequence[str] = ()) -> Prepared:
    """Install what the device's own Python lacks of numpy and onnxruntime; `versions` are requirements for them.

    What works there is never replaced or hidden: it may have providers that no wheel has.

    Raises: RefusedError when it cannot be prepared, DeviceError when it is lost or what was put there does not work;
        what was there before is there still then.
    """
    before = examine(link)
    if before.python is None:
        raise RefusedError(f"{link.address} has no Python 3.9 or newer; the agent needs one")
    wanted = tuple(_requirement(name, versions) for name in PACKAGES if not before.own[name].works)
    kept = tuple(f"{name} {before.own[name].version}" for name in PACKAGES if before.own[name].works)
    if not wanted or _there(link) == _mark(wanted):
        return Prepared((), kept, before)
    tags = platforms(before.machine, before.libc)
    _put(link, unpacked(wanted, before.python, tags, store), wanted)
    return Prepared(wanted, kept, examine(link))


def _requirement(name: str, versions: Sequence[str]) -> str:
    """`name==1.2` where such a version was asked for, else the bare name."""
    return next((each for each in versions if each.startswith(name) and not each[len(name) :][:1].isalnum()), name)


def _mark(wanted: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(sorted(wanted)).encode()).hexdigest()


def _there(link: Link) -> str:
    _, said, _ = link.run(["sh", "-c", f"cat {shlex.quote(str(link.root / SITE / MARK))} 2>/dev/null"])
    try:
        return str(json.loads(said)["digest"])
    except (ValueError, KeyError, TypeError):
        return ""


def _put(link: Link, site: Path, wanted: Sequence[str]) -> None:
    """Send it under another name, import it there, and only then let it take its place."""
    with tempfile.TemporaryDirectory(prefix="edgewright-site-") as scratch:
        folder = Path(scratch) / SITE
        shutil.copytree(site, folder, copy_function=_linked)
        (folder / MARK).write_text(json.dumps({"digest": _mark(wanted), "packages": list(wanted)}))
        place = link.put(folder, f"{SITE}.new")
    names = [name for name in PACKAGES if any(each.startswith(name) for each in wanted)]
    status, _, errors = link.run([link.python, "-c", CHECK, place, *names], timeout=240)
    if status:
        last = (errors.decode(errors="replace").strip().splitlines() or [f"exit status {status}"])[-1]
        link.run(["rm", "-rf", place])
        raise DeviceError(f"{' and '.join(wanted)} do not work on {link.address}, so nothing was changed: {last[:200]}")
    status, _, errors = link.run(["sh", "-c", SWITCH.format(root=shlex.quote(str(link.root)))])
    if status:
        raise DeviceError(
            f"{link.address} could not put {place} in its place: {errors.decode(errors='replace').strip()}"
        )


def _linked(source: str, goal: str) -> str:
    try:
        Path(goal).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, goal)
    return goal
