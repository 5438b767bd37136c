"""Checks of loaders: which sources they take, what they make of them, and how they refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from edgewright.errors import ModelError, PluginError
from edgewright.protocols import Loader, LoadRequest
from edgewright.testing.rig import Rig
from edgewright.testing.verdicts import attempt, fits, require, require_type
from edgewright.types import Model, Offer, Refusal

NOT_MODELS = ("", "no-such-thing", "model.tiff", "a folder/with spaces.docx")


def tells_sources_apart(offer: Offer[Loader], rig: Rig) -> None:
    """`accepts` judges by the name alone, and does not take everything."""
    for source in (*NOT_MODELS, *_sources(offer, rig).values()):
        answer = attempt("accepts", lambda s=source: offer.value.accepts(s))
        require_type(answer, bool, "accepts")
    taken = [source for source in NOT_MODELS if offer.value.accepts(source)]
    require(not taken, "accepts", f"it takes {taken}, which no loader can tell to be its own")


def loads(offer: Offer[Loader], rig: Rig) -> Refusal | None:
    """The same source gives the same model, whose example is what its signature says."""
    sources = _sources(offer, rig).values()
    for source in sources:
        first, second = (attempt("load", lambda s=source: _load(offer.value, s, rig)) for _ in range(2))
        require_type(first, Model, "load")
        require(first.digest == second.digest, "load", f"{source} has another digest the second time")
        require(first.history == (), "load", "a model that was only read has no steps in its history")
        for spec in first.signature.fed:
            found = first.example.get(spec.name)
            require(
                found is not None and fits(spec.shape, spec.dtype, found), "load", f"no example for {spec.describe()}"
            )
    return (
        None
        if sources
        else Refusal("no sample is of its kind; give it a method `sample(folder) -> str` that writes one")
    )


def refuses_what_is_no_model(offer: Offer[Loader], rig: Rig) -> Refusal | None:
    """A missing or broken file is a ModelError in one sentence."""
    sources = _sources(offer, rig).values()
    for source in sources:
        path, colon, name = source.partition(":")
        broken = rig.folder / "broken" / Path(path).name
        broken.parent.mkdir(exist_ok=True)
        broken.write_bytes(b"\x00\xffno model")
        for bad in (broken, rig.folder / "missing" / Path(path).name):
            _must_refuse(offer.value, f"{bad}{colon}{name}", rig)
    return (
        None
        if sources
        else Refusal("no sample is of its kind; give it a method `sample(folder) -> str` that writes one")
    )


def _sources(offer: Offer[Loader], rig: Rig) -> Mapping[str, str]:
    """The samples that it takes, and its own where it has a `sample`."""
    taken = {name: source for name, source in rig.sources.items() if offer.value.accepts(source)}
    sample = cast("Callable[[Path], str] | None", getattr(offer.value, "sample", None))
    if sample is None:
        return taken
    folder = rig.folder / "own" / offer.plugin
    folder.mkdir(parents=True, exist_ok=True)
    return {**taken, "its own": rig.once("sample", offer, lambda: attempt("sample", lambda: sample(folder)))}


def _must_refuse(loader: Loader, source: str, rig: Rig) -> None:
    try:
        _load(loader, source, rig)
    except ModelError as error:
        require("\n" not in str(error).strip(), "load", f"its refusal is not one sentence: {error}")
    except Exception as cause:
        raise PluginError(f"load: {source} must be a ModelError, not {type(cause).__name__}: {cause}") from cause
    else:
        raise PluginError(f"load: {source} is no model, and it read one")


def _load(loader: Loader, source: str, rig: Rig) -> Model:
    return loader.load(source, LoadRequest(rig.store, {}))
