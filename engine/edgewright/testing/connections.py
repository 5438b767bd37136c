"""Checks of connections: what they carry, and how they say that nothing is there."""

from __future__ import annotations

from edgewright.errors import DeviceError, PluginError
from edgewright.protocols import Connection, Link, Spotted
from edgewright.testing.rig import Rig
from edgewright.testing.verdicts import attempt, require, require_sentence, require_type
from edgewright.types import Offer, Refusal

NOWHERE = "no such device!"
"""No host, serial number or container is called so, and nothing is asked of a network to know it."""

BYTES = bytes(range(256)) * 300


def says_that_nothing_is_there(offer: Offer[Connection], rig: Rig) -> None:
    """An address that leads nowhere is a DeviceError in one sentence, not a hang or a crash."""
    try:
        link = offer.value.open(NOWHERE)
    except DeviceError as error:
        require_sentence(Refusal(str(error)), "open")
    except Exception as cause:
        told = f"open: {NOWHERE!r} must be a DeviceError, not {type(cause).__name__}: {cause}"
        raise PluginError(told) from cause
    else:
        link.close()
        raise PluginError(f"open: {NOWHERE!r} is no address, and it opened it")


def lists_devices(offer: Offer[Connection], rig: Rig) -> Refusal | None:
    """What it discovers has addresses of its scheme; where it cannot tell, a DeviceError says why."""
    scheme = offer.value.scheme
    try:
        found = list(offer.value.discover())
    except DeviceError as error:
        return require_sentence(Refusal(str(error)), "discover")
    except Exception as cause:
        raise PluginError(f"discover: {type(cause).__name__}: {cause}; raise DeviceError with the reason") from cause
    for each in found:
        require_type(each, Spotted, "discover")
        require(each.address.startswith(f"{scheme}:"), "discover", f"{each.address} does not begin with {scheme}://")
    return None


def carries_commands_and_files(offer: Offer[Connection], rig: Rig) -> Refusal | None:
    """Output, exit status and files come back as they are; needs a device, named with `--on` unless it is this host."""
    scheme = offer.value.scheme
    named = [each.removeprefix(f"{scheme}://") for each in rig.on if each.startswith(f"{scheme}://")]
    if not named and scheme != "local":
        return Refusal(f"no device to try it with; name one with --on {scheme}://ADDRESS")
    for address in named or [""]:
        link = attempt("open", lambda a=address: offer.value.open(a))
        try:
            _check_link(link, rig)
        finally:
            link.close()
    return None


def _check_link(link: Link, rig: Rig) -> None:
    status, said, errors = attempt("run", lambda: link.run(["sh", "-c", "cat; echo no >&2; exit 3"], stdin=BYTES))
    require((status, said) == (3, BYTES), "run", f"exit status and output are not the command's: {status}")
    require(errors.strip() == b"no", "run", f"its errors are not the command's: {errors!r}")
    sent, back = rig.folder / "sent", rig.folder / "back"
    sent.write_bytes(BYTES)
    there = attempt("put", lambda: link.put(sent, "arrays/conformance"))
    attempt("get", lambda: link.get(there, back))
    require(back.read_bytes() == BYTES, "get", "the file that comes back is not the one that was sent")
    process = attempt("start", lambda: link.start(["cat"]))
    try:
        process.stdin.write(b"ping\n")
        process.stdin.flush()
        require(process.stdout.readline() == b"ping\n", "start", "what goes in does not come out")
    finally:
        process.kill()
