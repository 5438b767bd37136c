"""The content-addressed cache: graphs by digest, results of steps by key, and what a killed step had already found.

    graphs/<digest>.<format>     the bytes of a graph
    steps/<key>.json             the model a step made
    memory/<key>/<part>.json     values a step computed on its way
    scratch/<key>/               files of a step that is under way
    journal/<run>.jsonl          what each run did, step by step

Nothing here is needed again: `engine clean` removes it all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.arrays import npz_bytes, read_npz
from edgewright.bundle import file_digest, parse_signature, parse_variant, plain, variant_entry
from edgewright.errors import InputError, OutputError
from edgewright.types import Arrays, GraphFile, Json, Model, Step


def _step(entry: Mapping[str, Any]) -> Step:
    fields: dict[str, Any] = {**entry, "notes": tuple(entry["notes"])}
    return Step(**fields)


def key_of(*parts: Any) -> str:
    """One sha-256 over everything a result depends on."""
    return hashlib.sha256(json.dumps(plain(parts), sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """The cache under one folder. Every write is whole or absent, so that a kill leaves nothing half done."""

    root: Path

    def keep(self, data: bytes, format: str = "onnx") -> GraphFile:
        """Store the bytes of a graph, once."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.root / "graphs" / f"{digest}.{format}"
        if not path.is_file() or path.stat().st_size != len(data):
            self._write(path, data)
        return GraphFile(path, digest, format)

    def save_model(self, key: str, model: Model) -> None:
        """Remember the model that a step made. Only models whose graphs are files can be."""
        entry = {
            "name": model.name,
            "source": model.source,
            "signature": plain(model.signature),
            "history": [plain(step) for step in model.history],
            "variants": [variant_entry(variant) for variant in model.variants],
        }
        self._write(self.root / "steps" / f"{key}.json", json.dumps(plain(entry)).encode())

    def load_model(self, key: str, example: Arrays) -> Model | None:
        """The model of a step that was done before; None when it was not, or its files are damaged."""
        entry = self._read(self.root / "steps" / f"{key}.json")
        if entry is None:
            return None
        variants = tuple(parse_variant(variant, self._place) for variant in entry["variants"])
        graphs = [stage.graph for variant in variants for stage in variant.stages]
        if not all(isinstance(g, GraphFile) and self._intact(g) for g in graphs):
            return None
        history = tuple(_step(step) for step in entry["history"])
        signature = parse_signature(entry["signature"])
        return Model(entry["name"], signature, variants, example, history, entry["source"])

    def remember(self, key: str, part: str, compute: Callable[[], Json]) -> Json:
        """The JSON value under (key, part), computed once."""
        path = self.root / "memory" / key / f"{key_of(part)}.json"
        found = self._read(path)
        if found is not None:
            return found["value"]
        value = compute()
        self._write(path, json.dumps({"part": part, "value": plain(value)}).encode())
        return value

    def remember_arrays(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """The named arrays under `key`, computed once and kept as .npz."""
        path = self.root / "arrays" / f"{key}.npz"
        try:
            return read_npz(path, InputError)
        except InputError:
            arrays = compute()
        self._write(path, npz_bytes(arrays))
        return arrays

    def scratch(self, key: str) -> Path:
        """A folder for one step, the same one after a kill."""
        return self._folder(self.root / "scratch" / key)

    def forget_scratch(self, key: str) -> None:
        """Remove what a finished step left lying about."""
        shutil.rmtree(self.root / "scratch" / key, ignore_errors=True)

    def folder(self, name: str) -> Path:
        """A folder of the cache, made when it is missing."""
        return self._folder(self.root / name)

    def append(self, run: str, event: Json) -> None:
        """Add a line to a run's journal."""
        with open(self.folder("journal") / f"{run}.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(plain(event)) + "\n")

    def clear(self) -> int:
        """Remove everything. Returns: the bytes that were freed."""
        if not self.root.is_dir():
            return 0
        freed = sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())
        shutil.rmtree(self.root)
        return freed

    @contextmanager
    def whole(self, path: Path) -> Generator[Path]:
        """A temporary name to write to; it takes `path`'s name when the block ends well.

        Raises: OutputError when the cache cannot be written.
        """
        self._folder(path.parent)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            os.replace(partial, path)
        except OSError as error:
            raise OutputError(
                f"the cache {self.root} cannot be written: {error.strerror}; free some space, or set --cache"
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes) -> None:
        with self.whole(path) as partial:
            partial.write_bytes(data)

    def _folder(self, path: Path) -> Path:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"the cache {self.root} cannot be written: {error.strerror}; set --cache to another folder"
            ) from error
        return path

    def _read(self, path: Path) -> Any:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _place(self, variant: str, stage: Mapping[str, Any]) -> Path:
        return self.root / "graphs" / f"{stage['digest']}.{stage['format']}"

    def _intact(self, graph: GraphFile) -> bool:
        return graph.path.is_file() and file_digest(graph.path) == graph.digest
