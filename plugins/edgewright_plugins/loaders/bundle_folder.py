"""Takes the stages of a bundle up again, so that another target, race or method can start from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewright.arrays import read_npz
from edgewright.bundle import is_bundle, open_bundle
from edgewright.errors import BundleError, ModelError
from edgewright.protocols import LoadRequest
from edgewright.types import GraphFile, Model, Stage, Step


class BundleFolder:
    """Loads a bundle's graphs; plan and measurements belong to the device they were made on, and stay behind."""

    name = "bundle"

    def accepts(self, source: str) -> bool:
        """A folder with a manifest."""
        return is_bundle(Path(source))

    def load(self, source: str, request: LoadRequest) -> Model:
        """The model in the bundle. Raises: BundleError when it was changed; ModelError for sizes it cannot take."""
        if request.shapes:
            raise ModelError(f"{source} is a bundle, whose sizes are fixed; deploy the model it came from with --shape")
        bundle = open_bundle(Path(source))

        def kept(stage: Stage) -> Stage:
            file = stage.graph
            assert isinstance(file, GraphFile)
            return replace(stage, graph=request.store.keep(file.path.read_bytes(), file.format))

        variants = tuple(replace(v, stages=tuple(kept(s) for s in v.stages)) for v in bundle.variants)
        example = read_npz(bundle.example_inputs, BundleError) if bundle.example_inputs.is_file() else {}
        history = tuple(_step(entry) for entry in bundle.extra.get("history", ()))
        return Model(bundle.name, bundle.signature, variants, example, history, source)


def _step(entry: Mapping[str, Any]) -> Step:
    fields: dict[str, Any] = {**entry, "notes": tuple(entry.get("notes", ()))}
    return Step(**fields)


BUNDLE_FOLDER = BundleFolder()
