"""Finds plugins, collects what they offer, and names the guilty one when something fails."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from edgewright import hookspecs
from edgewright.errors import EdgewrightError, PluginError, RecipeError, suggest
from edgewright.hookspecs import StepEvent
from edgewright.registry.discovery import (
    GROUP,
    PREFIX,
    Absent,
    Source,
    absent,
    check_hook,
    check_interface,
    check_names,
    installed,
    listed,
)
from edgewright.registry.kinds import (
    KINDS,
    TRANSFORMS,
    Kind,
)
from edgewright.types import Offer

T = TypeVar("T")


class Registry:
    """Every plugin and what it offers, as found when the registry is made; a broken one never stops it.

    Args:
        sources: the plugins to look at; by default all that are installed.
        only: names of the third-party plugins (or distributions) to load; None loads all, () none.
        without: names of plugins, distributions or listed modules to leave out.

    Raises: RecipeError when `only` or `without` names a plugin that does not exist.
    """

    def __init__(
        self,
        sources: Iterable[Source] | None = None,
        *,
        only: Sequence[str] | None = None,
        without: Sequence[str] = (),
    ) -> None:
        self._only = only
        self._without = without
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._loaded: dict[str, Source] = {}
        self._seen: list[Source] = []
        self._broken: list[Absent] = []
        self._left_out: list[Absent] = []
        self._load_all(sorted(installed() if sources is None else sources, key=lambda s: s.names))
        self._check_names_exist()
        self._offers = {kind.plural: self._collect(kind) for kind in KINDS}

    @property
    def plugins(self) -> tuple[Source, ...]:
        """What was loaded: entry points, and the modules they list."""
        return tuple(self._loaded.values())

    @property
    def broken(self) -> tuple[Absent, ...]:
        """Plugins and offers that cannot be used, each with its reason."""
        return tuple(self._broken)

    @property
    def left_out(self) -> tuple[Absent, ...]:
        """Plugins that were not loaded because the user said so."""
        return tuple(self._left_out)

    def all(self, kind: Kind[T]) -> tuple[Offer[T], ...]:
        """Every offer of a kind, by name; the order means nothing."""
        return self._offers[kind.plural]

    def names(self, kind: Kind[Any]) -> tuple[str, ...]:
        """What `get` takes: bare names where they are enough, `distribution/name` elsewhere."""
        return tuple(self.name(kind, offer) for offer in self.all(kind))

    def name(self, kind: Kind[T], offer: Offer[T]) -> str:
        """The shortest name under which `get` finds this offer."""
        bare = kind.name_of(offer.value)
        rivals = [o for o in self._named(kind, bare) if o is not offer]
        return bare if offer.plugin == GROUP or not rivals else f"{offer.plugin}/{bare}"

    def get(self, kind: Kind[T], name: str) -> Offer[T]:
        """The offer called `name`, or `distribution/name`; a bare name means the built-in.

        Raises: RecipeError (TargetError for targets) when nothing has the name, or two third parties have it.
        """
        distribution, _, bare = name.rpartition("/")
        found = [o for o in self._named(kind, bare) if distribution in ("", o.plugin)]
        built_in = [offer for offer in found if offer.plugin == GROUP]
        if not found:
            raise kind.error(f"no {kind.noun} named {name!r}; {suggest(name, self.names(kind))}")
        if len(found) > 1 and not built_in:
            raise kind.error(
                f"{kind.noun} {bare!r} is offered by {' and by '.join(o.label for o in found)}; "
                f"write {' or '.join(f'{o.plugin}/{bare}' for o in found)}"
            )
        return (built_in or found)[0]

    def notify(self, event: StepEvent) -> tuple[str, ...]:
        """Tell the observers that a step has ended; returns why any of them failed, which is never fatal."""
        failures: list[str] = []
        for impl in self._manager.hook.edgewright_step_finished.get_hookimpls():
            given = {"event": event}
            try:
                impl.function(*(given[name] for name in impl.argnames))
            except (Exception, SystemExit) as cause:  # noqa: BLE001 - an observer may fail in any way, and nothing depends on it
                label = self._loaded[impl.plugin_name].label
                failures.append(f"{label} failed while observing step {event.step!r}: {_told(cause)}")
        return tuple(failures)

    def _named(self, kind: Kind[T], bare: str) -> list[Offer[T]]:
        return [offer for offer in self.all(kind) if kind.name_of(offer.value) == bare]

    # ------------------------------------------------------------------ loading

    def _load_all(self, sources: Sequence[Source]) -> None:
        wanted = [source for source in sources if self._wanted(source, self._only)]
        for source in wanted:
            rivals = [s for s in wanted if s is not source and s.name == source.name]
            if rivals and not source.built_in:
                others = " and ".join(s.label for s in rivals)
                out = f"leave one out, e.g. with --no-plugin {source.distribution}"
                self._report(source, f"its name is also that of {others}; {out}")
            else:
                self._load(source, check=check_interface)

    def _wanted(self, source: Source, only: Sequence[str] | None = None) -> bool:
        self._seen.append(source)
        refused = [name for name in source.names if name in self._without]
        if refused:
            reason = f"left out by --no-plugin {refused[0]}"
        elif only is not None and not source.built_in and not set(source.names) & set(only):
            reason = f"not among EDGEWRIGHT_PLUGINS={','.join(only)}"
        else:
            return True
        self._left_out.append(absent(source, reason))
        return False

    def _load(self, source: Source, check: Callable[[ModuleType], None] | None = None) -> None:
        try:
            module = source.load()
            if check:
                check(module)
            check_names(module)
            modules = listed(module, source)
            self._register(source, module, lists=bool(modules))
        except (Exception, SystemExit) as cause:  # noqa: BLE001 - whatever a plugin does on import must not stop the command
            self._report(source, _told(cause))
            return
        for each in modules:
            if self._wanted(each):
                self._load(each)

    def _register(self, source: Source, module: ModuleType, *, lists: bool) -> None:
        hooks = self._hooks(module)
        if not hooks and not lists:
            raise PluginError(f"{module.__name__} offers nothing; define a function such as {TRANSFORMS.hook}")
        if self._manager.is_registered(module):
            raise PluginError(f"{module.__name__} is loaded already; name it once")
        for name, function, wraps in hooks:
            check_hook(name, function, wraps=wraps)
        key = f"{source.distribution}:{source.name}"
        self._manager.register(module, key)
        self._loaded[key] = source

    def _hooks(self, module: ModuleType) -> list[tuple[str, Callable[..., Any], bool]]:
        """Hook, function and whether it wraps; a function is a hook by its name or by pluggy's decorator."""
        found: list[tuple[str, Callable[..., Any], bool]] = []
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith(PREFIX) and self._manager.parse_hookimpl_opts(module, name) is None:
                pluggy.HookimplMarker(GROUP)(function)
            options = self._manager.parse_hookimpl_opts(module, name)
            if options is not None:
                wraps = bool(options.get("wrapper") or options.get("hookwrapper"))
                found.append((options.get("specname") or name, function, wraps))
        return found

    def _report(self, source: Source, reason: str) -> None:
        self._broken.append(absent(source, reason))

    def _check_names_exist(self) -> None:
        known = {name for source in self._seen for name in source.names}
        for where, names in (("EDGEWRIGHT_PLUGINS", self._only or ()), ("--no-plugin", self._without)):
            for name in names:
                if name not in known:
                    raise RecipeError(f"{where} names {name!r}, which is not installed; {suggest(name, known)}")

    # ------------------------------------------------------------------ collecting

    def _collect(self, kind: Kind[T]) -> tuple[Offer[T], ...]:
        offers: dict[tuple[str, str], Offer[T]] = {}
        for impl in getattr(self._manager.hook, kind.hook).get_hookimpls():
            source = self._loaded[impl.plugin_name]
            for value in self._values(kind, impl.function, source):
                key = (kind.name_of(value), source.distribution)
                if key in offers:
                    self._report(source, f"offers the {kind.noun} {key[0]!r} a second time")
                else:
                    entry = _entry(value, sys.modules.get(impl.function.__module__))
                    offers[key] = Offer(value, source.distribution, source.version, entry)
        return tuple(offers[key] for key in sorted(offers))

    def _values(self, kind: Kind[T], function: Callable[[], Iterable[T]], source: Source) -> list[T]:
        good: list[T] = []
        try:
            for value in function():
                fault = kind.fault(value)
                if fault:
                    self._report(source, f"offers {fault}")
                else:
                    good.append(value)
        except (Exception, SystemExit) as cause:  # noqa: BLE001 - whatever a plugin does must not stop the command
            self._report(source, f"failed in {kind.hook}: {_told(cause)}")
        return good


@contextmanager
def blame(offer: Offer[Any], doing: str) -> Generator[None]:
    """Turn what unexpectedly escapes from a plugin into an error that names it.

    >>> with blame(Offer(None, "edgewright-acme", "0.3"), "applying 'acme-prune' to 'net' for 'cpu'"):
    ...     1 / 0
    Traceback (most recent call last):
    edgewright.errors.PluginError: edgewright-acme 0.3 failed while applying 'acme-prune' to 'net' for 'cpu': ...
    """
    try:
        yield
    except EdgewrightError:
        raise
    except (Exception, SystemExit) as cause:
        raise PluginError(f"{offer.label} failed while {doing}: {_told(cause)}") from cause


def _told(cause: BaseException) -> str:
    return str(cause) if isinstance(cause, EdgewrightError) else f"{type(cause).__name__}: {cause}"


def _entry(value: object, module: ModuleType | None) -> str:
    """`module:object` where `value` can be imported from; empty when no module holds it under a name."""
    homes = (sys.modules.get(type(value).__module__), module)
    return next((name for home in homes if home for name in _names_in(home, value)), "")


def _names_in(home: ModuleType, value: object) -> list[str]:
    return [f"{home.__name__}:{name}" for name, held in vars(home).items() if held is value]
