"""Checks of runtimes: that they open artifacts and answer, and what they do when they cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgewright.bench import stage_artifacts
from edgewright.errors import InputError, PluginError
from edgewright.protocols import Runtime, Session
from edgewright.testing.rig import Rig
from edgewright.testing.verdicts import attempt, fits, require, require_sentence
from edgewright.types import Artifact, Model, Offer, Refusal

PROFILED = ("node", "operator", "provider", "median_us")


def opens_and_runs(offer: Offer[Runtime], rig: Rig) -> Refusal | None:
    """Opens an artifact with its usual options, and answers with what the signature says, the same twice."""
    for model, session in _opened(offer, rig):
        _check_session(session, model)
    return _nothing(offer, rig)


def leaves_its_feeds_alone(offer: Offer[Runtime], rig: Rig) -> Refusal | None:
    """The arrays that it is fed are the caller's."""
    for model, session in _opened(offer, rig):
        before = {name: array.copy() for name, array in model.example.items()}
        attempt("run", lambda s=session, m=model: s.run(m.example))
        same = all(np.array_equal(before[name], array) for name, array in model.example.items())
        require(same, "run", "it changes the arrays that it is fed")
    return _nothing(offer, rig)


def profiles(offer: Offer[Runtime], rig: Rig) -> Refusal | None:
    """Every node that it tells of has a name, an operator, a provider and a time."""
    for model, session in list(_opened(offer, rig))[:1]:
        found = attempt("profile", lambda s=session, m=model: s.profile(m.example, 2))
        for entry in found:
            lacking = [key for key in PROFILED if key not in entry]
            require(not lacking, "profile", f"an entry has no {', '.join(lacking)}")
            require(float(entry["median_us"]) >= 0, "profile", f"{entry['node']} takes {entry['median_us']} us")
    return _nothing(offer, rig)


def refuses_what_it_cannot_open(offer: Offer[Runtime], rig: Rig) -> Refusal | None:
    """A file that is no artifact is an InputError in one sentence."""
    taken = [artifact for _, artifact in _taken(offer.value, rig)]
    refusal = _nothing(offer, rig)
    if refusal is not None:
        return refusal
    broken = rig.folder / "broken" / f"artifact.{offer.value.formats[0]}"
    broken.parent.mkdir(exist_ok=True)
    broken.write_bytes(b"\x00\xffno artifact")
    options = offer.value.options(taken[0], rig.target)[0]
    try:
        offer.value.open(str(broken), {"threads": 1, **options})
    except InputError as error:
        require("\n" not in str(error).strip(), "open", f"its refusal is not one sentence: {error}")
    except Exception as cause:
        raise PluginError(f"open: a broken file must be an InputError, not {type(cause).__name__}: {cause}") from cause
    else:
        raise PluginError("open: a file of a few bytes is no artifact, and it opened one")
    return None


def _taken(runtime: Runtime, rig: Rig) -> list[tuple[Model, Artifact]]:
    whole = [model for model in rig.models("onnx").values() if len(model.stages) == 1]
    return [(m, a) for m in whole for a in stage_artifacts(m) if a.format in runtime.formats]


def _nothing(offer: Offer[Runtime], rig: Rig) -> Refusal | None:
    """Why nothing can be opened with it here."""
    runtime = offer.value
    refusal = require_sentence(attempt("probe", lambda: runtime.probe(rig.device)), "probe")
    if refusal is not None or _taken(runtime, rig):
        return refusal
    return Refusal(f"no sample is in a format it opens: {', '.join(runtime.formats)}")


def _opened(offer: Offer[Runtime], rig: Rig) -> Iterator[tuple[Model, Session]]:
    runtime = offer.value
    if _nothing(offer, rig) is not None:
        return
    for model, artifact in _taken(runtime, rig):
        options = attempt("options", lambda a=artifact: runtime.options(a, rig.target))
        require(bool(options) and all("provider" in o for o in options), "options", "each must hold a provider")
        yield (
            model,
            attempt("open", lambda a=artifact, o=options[0]: runtime.open(str(a.path), {"threads": 1, **o})),
        )


def _check_session(session: Session, model: Model) -> None:
    named = [spec.name for spec in model.signature.inputs]
    require(sorted(session.inputs) == sorted(named), "open", f"inputs are {session.inputs}, not {named}")
    feeds: Mapping[str, Any] = model.example
    first, second = (attempt("run", lambda: session.run(feeds)) for _ in range(2))
    by_name = dict(zip(session.outputs, first))
    for spec in model.signature.outputs:
        require(spec.name in by_name, "run", f"the output {spec.name!r} is missing")
        found = np.asarray(by_name[spec.name])
        require(fits(spec.shape, spec.dtype, found), "mismatch", f"{spec.describe()} came out as {list(found.shape)}")
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second))
    require(same, "mismatch", "the same input gives another answer the second time")
