"""Checks of what crosses the edge of the engine: loaders, exporters and runtimes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.bench import stage_artifacts
from edgewright.errors import ModelError, PluginError
from edgewright.protocols import Exporter, Loader, LoadRequest, Runtime, Session
from edgewright.testing.rig import Rig
from edgewright.testing.verdicts import attempt, require, require_sentence, require_type
from edgewright.types import Array, Artifact, Model, Offer, Refusal

NOT_MODELS = ("", "no-such-thing", "model.tiff", "a folder/with spaces.docx")


def tells_sources_apart(offer: Offer[Loader], rig: Rig) -> None:
    """`accepts` judges by the name alone, and does not take everything."""
    for source in (*NOT_MODELS, *rig.sources.values()):
        answer = attempt("accepts", lambda s=source: offer.value.accepts(s))
        require_type(answer, bool, "accepts")
    taken = [source for source in NOT_MODELS if offer.value.accepts(source)]
    require(not taken, "accepts", f"it takes {taken}, which no loader can tell to be its own")


def loads(offer: Offer[Loader], rig: Rig) -> Refusal | None:
    """The same source gives the same model, whose example is what its signature says."""
    sources = [source for source in rig.sources.values() if offer.value.accepts(source)]
    for source in sources:
        first, second = (attempt("load", lambda s=source: _load(offer.value, s, rig)) for _ in range(2))
        require_type(first, Model, "load")
        require(first.digest == second.digest, "load", f"{source} has another digest the second time")
        require(first.history == (), "load", "a model that was only read has no steps in its history")
        for spec in first.signature.fed:
            found = first.example.get(spec.name)
            require(
                found is not None and _fits(spec.shape, spec.dtype, found), "load", f"no example for {spec.describe()}"
            )
    return None if sources else Refusal("no sample is of its kind")


def refuses_what_is_no_model(offer: Offer[Loader], rig: Rig) -> Refusal | None:
    """A missing or broken file is a ModelError in one sentence."""
    sources = [source for source in rig.sources.values() if offer.value.accepts(source)]
    for source in sources:
        path, colon, name = source.partition(":")
        broken = rig.folder / "broken" / Path(path).name
        broken.parent.mkdir(exist_ok=True)
        broken.write_bytes(b"\x00\xffno model")
        for bad in (broken, rig.folder / "missing" / Path(path).name):
            _must_refuse(offer.value, f"{bad}{colon}{name}", rig)
    return None if sources else Refusal("no sample is of its kind")


def exports(offer: Offer[Exporter], rig: Rig) -> Refusal | None:
    """One artifact per stage, of the stated format, whose size and digest are those of its file."""
    exporter, refusal, done = offer.value, None, 0
    for sample, model in {**rig.models("onnx"), **rig.models("torch")}.items():
        refusal = require_sentence(attempt("check", lambda m=model: exporter.check(m, rig.target)), "check")
        if refusal is None:
            context = rig.context(sample, "export", offer.plugin, exporter.name)
            artifacts = attempt("export", lambda m=model, c=context: exporter.export(m, c))
            covered = [(a.variant, a.stage) for a in artifacts]
            wanted = [(v.name, s.name) for v in model.variants for s in v.stages]
            require(covered == wanted, "export", f"it covers {covered}; one artifact per stage is {wanted}")
            for artifact in artifacts:
                _check_artifact(artifact, exporter.format)
            done += 1
    return None if done else refusal


def opens_and_runs(offer: Offer[Runtime], rig: Rig) -> Refusal | None:
    """Opens an artifact with its usual options, and answers with what the signature says."""
    runtime = offer.value
    refusal = require_sentence(attempt("probe", lambda: runtime.probe(rig.device)), "probe")
    if refusal is not None:
        return refusal
    whole = [model for model in rig.models("onnx").values() if len(model.stages) == 1]
    taken = [(m, a) for m in whole for a in stage_artifacts(m) if a.format in runtime.formats]
    for model, artifact in taken:
        options = attempt("options", lambda a=artifact: runtime.options(a, rig.target))
        require(bool(options) and all("provider" in o for o in options), "options", "each must hold a provider")
        session = attempt("open", lambda a=artifact, o=options[0]: runtime.open(str(a.path), {"threads": 1, **o}))
        _check_session(session, model)
    return None if taken else Refusal(f"no sample is in a format it opens: {', '.join(runtime.formats)}")


def _check_session(session: Session, model: Model) -> None:
    named = [spec.name for spec in model.signature.inputs]
    require(sorted(session.inputs) == sorted(named), "open", f"inputs are {session.inputs}, not {named}")
    feeds: Mapping[str, Any] = model.example
    first, second = (attempt("run", lambda: session.run(feeds)) for _ in range(2))
    by_name = dict(zip(session.outputs, first))
    for spec in model.signature.outputs:
        require(spec.name in by_name, "run", f"the output {spec.name!r} is missing")
        found = np.asarray(by_name[spec.name])
        require(_fits(spec.shape, spec.dtype, found), "mismatch", f"{spec.describe()} came out as {list(found.shape)}")
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second))
    require(same, "mismatch", "the same input gives another answer the second time")


def _check_artifact(artifact: Artifact, format: str) -> None:
    require(artifact.path.is_file(), "export", f"{artifact.path} was not written")
    data = artifact.path.read_bytes()
    require(artifact.format == format, "export", f"it writes {artifact.format}, and states {format}")
    require(artifact.size == len(data), "export", f"{artifact.name} has {len(data)} bytes, not {artifact.size}")
    require(artifact.digest == hashlib.sha256(data).hexdigest(), "export", f"{artifact.name}: digest and file differ")


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


def _fits(shape: tuple[int | str, ...], dtype: str, found: Array) -> bool:
    sizes = all(isinstance(want, str) or want == have for want, have in zip(shape, found.shape))
    return len(shape) == found.ndim and sizes and str(found.dtype) == dtype
