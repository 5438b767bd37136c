"""The cache: whole or absent, believed only when intact."""

from __future__ import annotations

import numpy as np
import pytest

from edgewright.errors import OutputError
from edgewright.store import Store, key_of
from edgewright.types import Model, Signature, Stage, Step, TensorSpec, Variant


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


def model_of(store: Store) -> Model:
    signature = Signature((TensorSpec("x", "float32", (1, 3)),), (TensorSpec("y", "float32", (1,)),))
    stage = Stage("all", store.keep(b"graph"), ("x",), ("y",))
    step = Step("simplify", "edgewright 0.1", {"a": 1}, ("did a thing",), {"n": 3})
    return Model("net", signature, (Variant("main", (stage,)),), {}, (step,), "net.onnx")


def test_a_model_comes_back_as_it_was(store):
    model = model_of(store)
    store.save_model("k", model)
    back = store.load_model("k", {})
    assert back is not None
    assert (back.digest, back.signature, back.history, back.source) == (
        model.digest,
        model.signature,
        model.history,
        model.source,
    )


def test_a_damaged_graph_is_not_believed(store):
    model = model_of(store)
    store.save_model("k", model)
    model.stages[0].graph.path.write_bytes(b"grapf")
    assert store.load_model("k", {}) is None
    assert store.load_model("another", {}) is None


def test_a_value_is_computed_once_and_again_when_its_file_is_damaged(store):
    calls = []

    def compute():
        calls.append(1)
        return {"speed": [1.5, 2.0]}

    assert store.remember("k", "part", compute) == store.remember("k", "part", compute) == {"speed": [1.5, 2.0]}
    assert len(calls) == 1
    for path in (store.root / "memory" / "k").iterdir():
        path.write_text("{")
    assert store.remember("k", "part", compute) == {"speed": [1.5, 2.0]}
    assert len(calls) == 2


def test_arrays_come_back_and_a_truncated_file_is_computed_again(store):
    arrays = {"y": np.arange(6, dtype=np.float32).reshape(2, 3)}
    first = store.remember_arrays("k", lambda: arrays)
    assert (first["y"] == arrays["y"]).all()
    path = store.root / "arrays" / "k.npz"
    path.write_bytes(path.read_bytes()[:40])
    again = store.remember_arrays("k", lambda: {"y": arrays["y"] + 1})
    assert (again["y"] == arrays["y"] + 1).all()


def test_a_write_that_fails_leaves_nothing(store):
    with pytest.raises(ZeroDivisionError), store.whole(store.root / "steps" / "k.json") as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert list((store.root / "steps").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="set --cache"):
        Store(tmp_path / "file" / "cache").keep(b"x")


def test_clear_frees_everything(store):
    store.keep(b"12345")
    assert store.clear() == 5
    assert store.clear() == 0


def test_keys_depend_on_every_part():
    keys = {key_of("a", 1), key_of("a", 2), key_of("a", "1"), key_of("a"), key_of(("a", 1))}
    assert len(keys) == 5
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
