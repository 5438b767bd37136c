"""Prepares a device, and lists those that are at hand: for `engine device setup` and `engine devices`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from edgewright.deploying.opening import open_link
from edgewright.environment import Environment
from edgewright.errors import EdgewrightError, InputError, suggest
from edgewright.onboarding.install import prepare
from edgewright.onboarding.placing import Prepared
from edgewright.onboarding.preflight import Preflight, look
from edgewright.protocols import Spotted
from edgewright.registry import CONNECTIONS, blame

AT_ONCE = 16


@dataclass(frozen=True)
class Seen:
    """A device that is at hand: what it is, or why it cannot be used as it is."""

    address: str
    device: Preflight | None
    reason: str = ""


def set_up(address: str, env: Environment, extra: Sequence[str] = (), *, upgrade: bool = False) -> Prepared:
    """Prepare the device at an address. Raises: DeviceError, RefusedError; nothing there has changed then."""
    with ExitStack() as stack:
        link = open_link(address, env, stack)
        return prepare(link, env.store, extra, upgrade=upgrade, say=lambda what: env.progress(what, 0, 0))


def devices(addresses: Sequence[str], env: Environment, *, configured: bool = False) -> tuple[Seen, ...]:
    """The devices at these addresses, and those that connections know of; looked at side by side.

    `configured` asks for those too that the user's own settings name, such as the hosts of ~/.ssh/config.
    """
    for address in addresses:
        _check(address, env)
    found = {address: Spotted(address) for address in addresses}
    for spotted in _discovered(env, configured=configured):
        found.setdefault(spotted.address, spotted)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(pool.map(lambda each: _seen(each, env), found.values()))


def _check(address: str, env: Environment) -> None:
    """Raises: InputError for an address without a scheme that is known."""
    scheme, mark, _ = address.partition("://")
    known = [env.registry.name(CONNECTIONS, offer) for offer in env.registry.all(CONNECTIONS)]
    if not mark or scheme not in known:
        raise InputError(f"{address!r} is no address of a device; write SCHEME://NAME; {suggest(scheme, known)}")


def _discovered(env: Environment, *, configured: bool) -> Iterator[Spotted]:
    """What each connection knows of; one that cannot tell is a line with its reason."""
    for offer in env.registry.all(CONNECTIONS):
        try:
            with blame(offer, "looking for devices"):
                found = tuple(offer.value.discover(configured=configured))
        except EdgewrightError as error:
            found = (Spotted(f"{env.registry.name(CONNECTIONS, offer)}://", str(error)),)
        yield from found


def _seen(spotted: Spotted, env: Environment) -> Seen:
    if spotted.reason:
        return Seen(spotted.address, None, spotted.reason)
    try:
        with ExitStack() as stack:
            return Seen(spotted.address, look(open_link(spotted.address, env, stack)))
    except EdgewrightError as error:
        return Seen(spotted.address, None, str(error).removeprefix(f"{spotted.address} "))
