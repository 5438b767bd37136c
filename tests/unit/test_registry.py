"""The registry: what is found, what is broken and why, who is meant by a name, and who is blamed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgewright.errors import ModelError, PluginError, RecipeError, TargetError
from edgewright.hookspecs import StepEvent
from edgewright.registry import (
    CONNECTIONS,
    KINDS,
    RENDERERS,
    TARGETS,
    Registry,
    Source,
    blame,
    installed,
)
from edgewright.types import Offer

API = "EDGEWRIGHT_API = 1\n"

TEXT = """
class Text:
    name = "{name}"
    suffix = ".txt"
    def render(self, report):
        return ""
TEXT = Text()
"""

OFFER = TEXT.format(name="text") + "def edgewright_renderers():\n    return (TEXT,)\n"

Write = Callable[..., Source]


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a plugin module and gives the source that imports it."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)

    def write(name: str, code: str, distribution: str = "", version: str = "0.3") -> Source:
        (tmp_path / f"{name}.py").write_text(code)
        load = partial(importlib.import_module, name)
        return Source(name, distribution or f"edgewright-{name}", version, load)

    yield write
    for module in set(sys.modules) - known:
        if (tmp_path / f"{module}.py").exists():
            del sys.modules[module]


def built_in(plugin: Write, name: str, code: str) -> Source:
    """A plugin that counts as the engine's own."""
    return plugin(name, code, "edgewright", "0.1.0")


def reasons(registry: Registry) -> list[str]:
    return [absent.reason for absent in registry.broken]


# ------------------------------------------------------------------ what a plugin is


def test_plain_functions_offer(plugin: Write) -> None:
    registry = Registry([plugin("bolt", API + OFFER)])
    offer = registry.get(RENDERERS, "text")
    assert (offer.label, offer.entry, registry.broken) == ("edgewright-bolt 0.3", "bolt:TEXT", ())
    assert offer.value.suffix == ".txt"


def test_pluggys_decorator_works_too(plugin: Write) -> None:
    code = (
        API
        + TEXT.format(name="text")
        + (
            "import pluggy\n"
            "@pluggy.HookimplMarker('edgewright')(specname='edgewright_renderers')\n"
            "def texts():\n    yield TEXT\n"
        )
    )
    assert Registry([plugin("bolt", code)]).names(RENDERERS) == ("text",)


def test_listed_modules_are_loaded_each_on_its_own(plugin: Write) -> None:
    plugin("bolt_good", OFFER)
    plugin("bolt_bad", "import no_such_module\n")
    registry = Registry([plugin("bolt", API + "MODULES = ('bolt_bad', 'bolt_good')\n")])
    assert registry.names(RENDERERS) == ("text",)
    assert [source.name for source in registry.plugins] == ["bolt", "bolt_good"]
    [absent] = registry.broken
    assert (absent.name, absent.distribution, absent.version) == ("bolt_bad", "edgewright-bolt", "0.3")
    assert absent.reason == "ModuleNotFoundError: No module named 'no_such_module'"


BROKEN = {
    "import error": ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
    "exits": (API + "raise SystemExit(3)\n", "SystemExit: 3"),
    "syntax": ("def\n", "SyntaxError: invalid syntax"),
    "no interface": (OFFER, "bolt does not say which plugin interface it is for; add EDGEWRIGHT_API = 1"),
    "old interface": ("EDGEWRIGHT_API = 0\n" + OFFER, "is written for EDGEWRIGHT_API = 0, and this engine speaks"),
    "misspelt hook": (
        API + "def edgewright_transform():\n    return ()\n",
        "unknown hook 'edgewright_transform'; allowed: edgewright_attacks,",
    ),
    "unknown argument": (
        API + "def edgewright_step_finished(evnt): ...\n",
        "takes an argument 'evnt', which it is not given; allowed: event; did you mean 'event'?",
    ),
    "argument of an offer": (
        API + "def edgewright_renderers(config): ...\n",
        "edgewright_renderers takes an argument 'config', which it is not given; allowed: none",
    ),
    "default": (
        API + "def edgewright_step_finished(event=None): ...\n",
        "edgewright_step_finished: write the argument 'event' without a default",
    ),
    "keyword-only": (
        API + "def edgewright_step_finished(*, event): ...\n",
        "edgewright_step_finished: write the argument 'event' without a default",
    ),
    "wrapper": (
        API
        + "import pluggy\n@pluggy.HookimplMarker('edgewright')(wrapper=True)\n"
        + "def edgewright_renderers():\n    return (yield)\n",
        "edgewright_renderers is a wrapper; hooks cannot be wrapped",
    ),
    "not a function": (API + "edgewright_renderers = []\n", "edgewright_renderers in bolt is a list; it must be"),
    "offers nothing": (API, "bolt offers nothing; define a function such as edgewright_transforms"),
    "no comma": (API + "MODULES = ('bolt_a')\n", "MODULES in bolt is a str; it must be a tuple of module names"),
    "lists itself": (API + "MODULES = ('bolt',)\n", "bolt is loaded already; name it once"),
    "crash while offering": (
        API + "def edgewright_renderers():\n    return 1 / 0\n",
        "failed in edgewright_renderers: ZeroDivisionError: division by zero",
    ),
    "no iterable": (
        API + "def edgewright_renderers():\n    return 3\n",
        "failed in edgewright_renderers: TypeError: 'int' object is not iterable",
    ),
    "missing members": (
        API + "class T:\n    name = 't'\n    takes = gives = 'onnx'\n    def check(self): ...\n"
        "def edgewright_transforms():\n    return (T(),)\n",
        "offers a transform 't' without summary, Params, needs, reads, apply",
    ),
    "member that cannot be called": (
        API + "class R:\n    name = 'r'\n    suffix = '.r'\n    render = 'text'\n"
        "def edgewright_renderers():\n    return (R(),)\n",
        "offers a renderer 'r' without render",
    ),
    "class, not instance": (
        API + TEXT.format(name="text") + "def edgewright_renderers():\n    return (Text,)\n",
        "offers the class Text as a renderer; offer an instance of it",
    ),
    "not a target": (
        API + "def edgewright_targets():\n    return ('cpu',)\n",
        "offers a str as a target; it must be an edgewright.types.Target",
    ),
    "name of two words": (
        API + TEXT.format(name="my text") + "def edgewright_renderers():\n    return (TEXT,)\n",
        "offers a renderer named 'my text'; a name is one word without '/' and ','",
    ),
    "twice": (
        API + TEXT.format(name="text") + "def edgewright_renderers():\n    return (TEXT, TEXT)\n",
        "offers the renderer 'text' a second time",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_listed_and_stops_nothing(case: str, plugin: Write) -> None:
    code, reason = BROKEN[case]
    good = plugin("acme", API + OFFER.replace('"text"', '"fine"'))
    registry = Registry([plugin("bolt", code), good])
    [absent] = registry.broken
    assert (absent.name, absent.distribution, absent.version) == ("bolt", "edgewright-bolt", "0.3")
    assert reason in absent.reason
    assert "fine" in registry.names(RENDERERS)


def test_an_entry_point_that_is_no_module_is_listed() -> None:
    registry = Registry([Source("bolt", "edgewright-bolt", "1", object)])  # type: ignore[arg-type,return-value]
    assert reasons(registry) == ["its entry point gives an object; it must name a module"]


def test_offers_before_a_crash_are_kept(plugin: Write) -> None:
    code = API + TEXT.format(name="text") + "def edgewright_renderers():\n    yield TEXT\n    1 / 0\n"
    registry = Registry([plugin("bolt", code)])
    assert registry.names(RENDERERS) == ("text",)
    assert reasons(registry) == ["failed in edgewright_renderers: ZeroDivisionError: division by zero"]


def test_ctrl_c_while_loading_gets_through(plugin: Write) -> None:
    with pytest.raises(KeyboardInterrupt):
        Registry([plugin("bolt", "raise KeyboardInterrupt\n")])


# ------------------------------------------------------------------ names


def test_a_name_of_two_third_party_plugins_loads_neither(plugin: Write) -> None:
    one = plugin("acme", API + OFFER)
    other = Source("acme", "edgewright-bolt", "2", one.load)
    registry = Registry([one, other])
    assert registry.plugins == ()
    assert reasons(registry) == [
        "its name is also that of acme (edgewright-bolt 2); leave one out, e.g. with --no-plugin edgewright-acme",
        "its name is also that of acme (edgewright-acme 0.3); leave one out, e.g. with --no-plugin edgewright-bolt",
    ]
    assert Registry([one, other], without=("edgewright-bolt",)).names(RENDERERS) == ("text",)


def test_a_bare_name_means_the_built_in(plugin: Write) -> None:
    registry = Registry([plugin("acme", API + OFFER), built_in(plugin, "own", API + OFFER)])
    assert registry.names(RENDERERS) == ("text", "edgewright-acme/text")
    assert registry.get(RENDERERS, "text").plugin == "edgewright"
    assert registry.get(RENDERERS, "edgewright-acme/text").plugin == "edgewright-acme"


def test_two_third_parties_of_one_name_stop_with_both_written_out(plugin: Write) -> None:
    registry = Registry([plugin("acme", API + OFFER), plugin("bolt", API + OFFER)])
    with pytest.raises(RecipeError) as caught:
        registry.get(RENDERERS, "text")
    assert str(caught.value) == (
        "renderer 'text' is offered by edgewright-acme 0.3 and by edgewright-bolt 0.3; "
        "write edgewright-acme/text or edgewright-bolt/text"
    )
    assert registry.get(RENDERERS, "edgewright-bolt/text").label == "edgewright-bolt 0.3"


def test_an_unknown_name_gives_the_nearest(plugin: Write) -> None:
    registry = Registry([plugin("acme", API + OFFER)])
    with pytest.raises(RecipeError) as caught:
        registry.get(RENDERERS, "txet")
    assert str(caught.value) == "no renderer named 'txet'; allowed: text; did you mean 'text'?"
    with pytest.raises(RecipeError, match="no renderer named 'edgewright-bolt/text'"):
        registry.get(RENDERERS, "edgewright-bolt/text")
    with pytest.raises(TargetError, match="no target named 'cpu'; allowed: none"):
        registry.get(TARGETS, "cpu")


def test_a_connection_is_found_by_its_scheme(plugin: Write) -> None:
    code = (
        "class Tin:\n    scheme = 'tin'\n    def open(self, address): ...\n"
        "    def discover(self, *, configured=False): ...\n"
        "def edgewright_connections():\n    return [Tin()]\n"
    )
    registry = Registry([plugin("acme", API + code)])
    assert registry.get(CONNECTIONS, "tin").entry == ""


def test_order_of_discovery_means_nothing(plugin: Write) -> None:
    sources = [plugin(name, API + OFFER.replace('"text"', f'"{name}"')) for name in ("bolt", "acme", "crank")]
    for order in (sources, sources[::-1]):
        assert Registry(order).names(RENDERERS) == ("acme", "bolt", "crank")


# ------------------------------------------------------------------ what the user leaves out


def test_only_names_third_parties_and_keeps_what_they_list(plugin: Write) -> None:
    plugin("acme_part", OFFER)
    sources = [
        plugin("acme", API + "MODULES = ('acme_part',)\n"),
        plugin("bolt", API + OFFER),
        built_in(plugin, "own", API + OFFER.replace('"text"', '"own"')),
    ]
    registry = Registry(sources, only=("acme",))
    assert [offer.label for offer in registry.all(RENDERERS)] == ["edgewright 0.1.0", "edgewright-acme 0.3"]
    assert [(a.name, a.reason) for a in registry.left_out] == [("bolt", "not among EDGEWRIGHT_PLUGINS=acme")]
    assert Registry(sources, only=()).names(RENDERERS) == ("own",)


def test_without_takes_plugins_distributions_and_listed_modules(plugin: Write) -> None:
    plugin("acme_part", OFFER)
    sources = [plugin("acme", API + "MODULES = ('acme_part',)\n")]
    for name in ("acme", "edgewright-acme", "acme_part"):
        registry = Registry(sources, without=(name,))
        assert registry.names(RENDERERS) == ()
        assert [absent.reason for absent in registry.left_out] == [f"left out by --no-plugin {name}"]


@pytest.mark.parametrize(
    ("control", "sentence"),
    [
        (
            {"only": ("acne",)},
            "EDGEWRIGHT_PLUGINS names 'acne', which is not installed; allowed: acme, edgewright-acme",
        ),
        ({"without": ("acne",)}, "--no-plugin names 'acne', which is not installed; allowed: acme, edgewright-acme"),
    ],
)
def test_a_plugin_that_is_not_there_cannot_be_named(control: dict[str, Any], sentence: str, plugin: Write) -> None:
    with pytest.raises(RecipeError) as caught:
        Registry([plugin("acme", API + OFFER)], **control)
    assert str(caught.value).startswith(sentence)
    assert "did you mean 'acme'?" in str(caught.value)


# ------------------------------------------------------------------ blame and observers


def test_blame_names_the_plugin_and_chains_the_cause() -> None:
    offer = Offer(object(), "edgewright-acme", "0.3")
    with (
        pytest.raises(PluginError) as caught,
        blame(offer, "applying 'acme-prune' to 'net' for 'cpu'"),
    ):
        raise ZeroDivisionError("division by zero")
    assert str(caught.value) == (
        "edgewright-acme 0.3 failed while applying 'acme-prune' to 'net' for 'cpu': ZeroDivisionError: division by zero"
    )
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("error", [ModelError("no file"), KeyboardInterrupt()])
def test_blame_leaves_our_own_errors_and_ctrl_c_alone(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, blame(Offer(object(), "edgewright-acme", "0.3"), "loading"):
        raise error
    assert caught.value is error


def test_a_plugin_that_exits_is_blamed() -> None:
    offer = Offer(object(), "edgewright-acme", "0.3")
    with pytest.raises(PluginError, match="failed while loading: SystemExit: 3"), blame(offer, "loading"):
        sys.exit(3)


def test_observers_are_told_and_never_fatal(plugin: Write) -> None:
    watcher = API + "seen = []\ndef edgewright_step_finished(event):\n    seen.append(event)\n"
    idle = API + "def edgewright_step_finished():\n    raise ValueError('tired')\n"
    registry = Registry([plugin("acme", watcher), plugin("bolt", idle)])
    event = StepEvent("simplify", "net", "cpu", 0.5, cached=False)
    assert registry.notify(event) == (
        "bolt (edgewright-bolt 0.3) failed while observing step 'simplify': ValueError: tired",
    )
    assert sys.modules["acme"].seen == [event]


# ------------------------------------------------------------------ what is installed


def test_entry_points_of_installed_distributions_are_found(plugin: Write, tmp_path: Path) -> None:
    plugin("bolt", API + OFFER)
    info = tmp_path / "edgewright_bolt-0.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgewright-bolt\nVersion: 0.9\n")
    (info / "entry_points.txt").write_text("[edgewright]\nbolt = bolt\n")
    [source] = [s for s in installed() if s.name == "bolt"]
    assert source.label == "bolt (edgewright-bolt 0.9)"
    assert Registry([source]).names(RENDERERS) == ("text",)


LEAN = """
import json, sys, time
start = time.process_time()
import numpy
imported = time.process_time()
from edgewright.registry import Registry
before = time.process_time()
registry = Registry()
spent = {"numpy": imported - start, "registry": time.process_time() - before}
heavy = {"torch", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "tvm"} & set(sys.modules)
folders = [source.name for source in registry.plugins if source.distribution == "edgewright"]
print(json.dumps({"spent": spent, "heavy": sorted(heavy), "loaded": folders}))
"""


def test_listing_the_built_ins_is_lean_and_quick() -> None:
    runs = [json.loads(_python(LEAN)) for _ in range(5)]
    assert {"devices", "exporters", "plugins", "runtime"} <= set(runs[0]["loaded"])
    assert runs[0]["heavy"] == []
    numpy, registry = (min(run["spent"][what] for run in runs) for what in ("numpy", "registry"))
    assert registry < 2.5 * numpy, (
        "seconds of CPU; alone it is 0.8 to 1.2, and other work on the machine adds to either"
    )


def test_no_built_in_is_broken() -> None:
    assert [absent for absent in Registry(only=()).broken if absent.distribution == "edgewright"] == []


def test_every_hook_has_a_kind() -> None:
    from edgewright import hookspecs

    hooks = {name for name in vars(hookspecs) if name.startswith("edgewright_")}
    assert hooks == {kind.hook for kind in KINDS} | {"edgewright_step_finished"}


def _python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()
