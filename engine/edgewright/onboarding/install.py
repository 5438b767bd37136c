"""Puts on a device what it lacks, and leaves alone what it has."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgewright.errors import DeviceError, RefusedError
from edgewright.onboarding.native import prepare_native
from edgewright.onboarding.placing import OLDER, SAID, Prepared, about, check_room, lead, send
from edgewright.onboarding.preflight import PACKAGES, Interpreter, Preflight, examine, try_imports
from edgewright.onboarding.wheels import Kind, NoWheel, Unpacked, is_path, platforms, unpack
from edgewright.protocols import Link
from edgewright.store import Store


@dataclass(frozen=True)
class Wish:
    """What may be put on the device, best first: each is tried in turn until one can be imported there."""

    asked: tuple[str, ...]
    choices: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def prepare(link: Link, store: Store, extra: Sequence[str] = (), *, upgrade: bool = False, say: SAID) -> Prepared:
    """Give the device's Python numpy and onnxruntime, unless it has one that works, and `extra` distributions.

    A device without Python gets the native runner and onnxruntime's library instead.

    Args:
        link: To a device other than this host.
        store: Keeps what was got for the device.
        extra: Requirements, wheels or project folders; one of numpy or onnxruntime chooses its version.
        upgrade: Looks for newer versions.
        say: Is told of what takes long.

    Raises: RefusedError when it cannot be prepared, DeviceError when it is lost or busy, or nothing works there. Then
        what was there before is there still.
    """
    if not link.shared:
        raise RefusedError("this machine needs no setup: its runtime is the engine's own; name a device with --on")
    say(f"looking at {link.address}")
    before = examine(link, free=True)
    if before.python is None:
        return prepare_native(link, store, extra, before, upgrade=upgrade, say=say)
    python = _usable(link, before.python)
    wish = wish_for(python, tuple(extra))
    if not upgrade and _stands(before, python, wish):
        return Prepared((), 0, wish.notes, before)
    if not wish.asked:
        if before.mark:
            lead(link, "")
        return Prepared((), 0, wish.notes, examine(link) if before.mark else before)
    kind = Kind(".".join(python.version.split(".")[:2]), python.abi, platforms(before.isa, before.libc))
    done = _first_that_works(link, store, wish, kind, upgrade=upgrade, say=say, before=before)
    same = before.mark.get("digest") == done.site.digest
    installed = () if same else tuple(f"{name} {version}" for name, version in sorted(done.site.versions.items()))
    after = replace(before, python=done.python, mark=about(done.site.digest, wish.asked, done.site.versions))
    return Prepared(installed, 0 if same else done.site.size, (*wish.notes, *done.troubles), after)


def _usable(link: Link, python: Interpreter) -> Interpreter:
    """Raises: RefusedError when wheels are of no use there."""
    if python.implementation != "cpython":
        raise RefusedError(
            f"the Python of {link.address} is {python.implementation}; the wheels are CPython's; install that"
        )
    return python


# ------------------------------------------------------------------ what to put there


def wish_for(python: Interpreter, extra: tuple[str, ...]) -> Wish:
    """A runtime of the device's own that works stays: it may have providers that no wheel has."""
    own = python.own["onnxruntime"]
    pinned = {name: each for each in extra for name in PACKAGES if _name(each) == name}
    others = tuple(each for each in extra if _name(each) not in PACKAGES)
    if own.works:
        notes = (f"onnxruntime {own.version} is the device's own ({', '.join(own.providers)}) and stays as it is",)
        notes += tuple(f"{each} was not installed, since it would hide the device's own" for each in pinned.values())
        return Wish(others, (others,), notes)
    numpy, runtime = (pinned.get(name, name) for name in PACKAGES)
    choices: list[tuple[str, ...]] = [(numpy, runtime, *others)]
    if runtime == "onnxruntime":
        choices += [(numpy, f"onnxruntime{older}", *others) for older in OLDER]
    if own.trouble and python.own["numpy"].version.startswith("2.") and not pinned:
        choices.insert(0, ("numpy<2", *others))  # a runtime that was built for NumPy 1, as JetPack's were for long
    notes = (f"the device's own onnxruntime does not work: {own.trouble}",) if own.trouble else ()
    return Wish((numpy, runtime, *others), tuple(choices), notes)


def _name(requirement: str) -> str:
    """The distribution that a requirement, or a wheel's file name, states; a project folder states none."""
    if is_path(requirement) and not requirement.endswith(".whl"):
        return ""
    found = re.match(r"[A-Za-z0-9._]+(?:-[A-Za-z_][A-Za-z0-9._]*)*", requirement.rpartition("/")[2])
    return found.group().lower().replace("_", "-") if found else ""


def _stands(device: Preflight, python: Interpreter, wish: Wish) -> bool:
    """Whether an earlier setup left just what is asked for now, and it works."""
    works = all(python.found[name].works for name in PACKAGES)
    local = any(is_path(each) for each in wish.asked)  # it may have changed
    return works and not local and tuple(device.mark.get("asked", ())) == wish.asked


# ------------------------------------------------------------------ getting it there


@dataclass(frozen=True)
class _Done:
    """What now works on the device, what its Python imports since, and what became of the choices before it."""

    site: Unpacked
    python: Interpreter
    troubles: tuple[str, ...]


def _first_that_works(
    link: Link, store: Store, wish: Wish, kind: Kind, *, upgrade: bool, say: SAID, before: Preflight
) -> _Done:
    """Raises: NoWheel when there is nothing to try, DeviceError when nothing works."""
    troubles: list[str] = []
    tried: set[str] = set()
    for requirements in wish.choices:
        say(f"looking for {' and '.join(requirements)} for Python {kind.python} on {kind.platforms[0]}")
        try:
            site = unpack(requirements, kind, store, upgrade=upgrade)
        except NoWheel as refusal:
            troubles.append(str(refusal))
            continue
        if site.digest in tried:
            continue
        tried.add(site.digest)
        found = _tried(link, site, wish, before=before, say=say)
        trouble = "; ".join(f"{name}: {each.trouble}" for name, each in found.found.items() if not each.works)
        if not trouble:
            lead(link, site.digest)
            return _Done(site, found, tuple(troubles))
        troubles.append(f"{_listed(site)} does not work there ({trouble})")
        _remove(link, site, before)
    if not tried:
        raise NoWheel(troubles[0])
    raise DeviceError(f"nothing that was tried works on {link.address}, which is as it was: {'; '.join(troubles)}")


def _tried(link: Link, site: Unpacked, wish: Wish, *, before: Preflight, say: SAID) -> Interpreter:
    """What the device imports from `site`, which is sent beside what is there already."""
    if before.mark.get("digest") != site.digest:
        check_room(link, site.size, before)
        say(f"sending {_listed(site)} ({site.size / 1e6:.0f} MB)")
        _send(link, site, wish)
    say("importing it there")
    assert before.python is not None  # only then there is a site to try
    return try_imports(link, f"{link.root}/sites/{site.digest}", before.python)


def _listed(site: Unpacked) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(site.versions.items()))


def _remove(link: Link, site: Unpacked, before: Preflight) -> None:
    if before.mark.get("digest") != site.digest:
        link.run(["rm", "-rf", f"{link.root}/sites/{site.digest}"])


def _send(link: Link, site: Unpacked, wish: Wish) -> None:
    with tempfile.TemporaryDirectory(prefix="edgewright-site-") as scratch:
        folder = Path(scratch) / "site"
        shutil.copytree(site.place / "packages", folder, copy_function=_linked)
        send(link, folder, about(site.digest, wish.asked, site.versions))


def _linked(source: str, goal: str) -> str:
    try:
        Path(goal).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, goal)
    return goal
