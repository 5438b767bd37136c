"""Recipes: from command line and TOML to checked values, and refusals that help."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.asking.recipe import ordered, resolve
from edgewright.asking.recipefile import read_request
from edgewright.asking.request import MethodCall, Request, merge, parse_method, parse_shape
from edgewright.errors import RecipeError
from edgewright.registry import TARGETS, Registry


@pytest.fixture(scope="module")
def registry():
    return Registry(only=())


@pytest.fixture(scope="module")
def cpu(registry):
    return registry.get(TARGETS, "cpu").value


def test_a_method_is_read_with_its_parameters():
    assert parse_method("quantize:mode=static,keep=a+b") == MethodCall("quantize", {"mode": "static", "keep": "a+b"})
    assert parse_method("simplify") == MethodCall("simplify")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("quantize:static", "'static' is no parameter; write quantize:name=value"),
        ("quantize:mode=a,mode=b", "says 'mode' twice"),
        (":mode=a", "names no method"),
    ],
)
def test_a_method_that_cannot_be_read_is_refused(text, sentence):
    with pytest.raises(RecipeError, match=sentence):
        parse_method(text)


def test_shapes_are_read():
    assert parse_shape("image:1x3x224x224") == ("image", (1, 3, 224, 224))
    assert parse_shape("ns:image:1x3") == ("ns:image", (1, 3))
    for bad in ("image", "image:1x-3", "image:0x3", "1x3", "image:axb"):
        with pytest.raises(RecipeError, match="write image:1x3x224x224"):
            parse_shape(bad)
    for other in ("x=1x30x20", "x:1,30,20", "x=1,30,20"):
        with pytest.raises(RecipeError, match="write x:1x30x20"):
            parse_shape(other)


@given(st.text(max_size=40))
def test_any_text_is_a_method_or_a_sentence(text):
    try:
        assert parse_method(text).name
    except RecipeError as error:
        assert "--apply" in str(error)


def test_a_project_file_is_read_and_its_paths_are_its_own(tmp_path):
    (tmp_path / "edgewright.toml").write_text(
        """
        model = "net.onnx"
        target = "jetson"
        task = "data.npz"
        runtime = "ort,null"
        batch = 4
        [shapes]
        image = [1, 3, 8, 8]
        [contract]
        max_drop = "2%"
        [[method]]
        name = "quantize"
        mode = "static"
        """
    )
    request = read_request(tmp_path / "edgewright.toml")
    assert request.model == str(tmp_path / "net.onnx")
    assert request.runtime == ("ort", "null")
    assert request.apply == (MethodCall("quantize", {"mode": "static"}),)
    assert request.shapes == {"image": (1, 3, 8, 8)}
    merged = merge(Request(target="cpu", bounds={"max_size": "1MB"}), request)
    assert (merged.target, merged.batch) == ("cpu", 4)
    assert merged.bounds == {"max_drop": "2%", "max_size": "1MB"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("modle = 'x'", "unknown key 'modle'.*did you mean 'model'"),
        ("[contract]\nmax_dorp = '1%'", r"\[contract\] has no bound 'max_dorp'.*did you mean 'max_drop'"),
        ("batch = 'four'", "batch = 'four' must be a whole number"),
        ("batch = true", "must be a whole number"),
        ("[[method]]\nmode = 'static'", r"a \[\[method\]\] has no name"),
        ("method = 'quantize'", "method"),
        ("shapes = 3", "shapes"),
        ("model = [", "is not readable TOML"),
    ],
)
def test_a_file_with_a_mistake_is_refused_with_the_place(tmp_path, text, sentence):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=sentence):
        read_request(path)
    with pytest.raises(RecipeError, match="no recipe file"):
        read_request(tmp_path / "none.toml")


JSONISH = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.text("ab\n=", max_size=4),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@given(st.dictionaries(st.sampled_from(["model", "batch", "method", "shapes", "contract", "seed", "x"]), JSONISH))
def test_no_toml_ends_in_anything_but_a_request_or_a_sentence(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("toml") / "r.toml"
    path.write_text("\n".join(f"{key} = {toml(value)}" for key, value in values.items()))
    try:
        assert isinstance(read_request(path), Request)
    except RecipeError as error:
        assert "r.toml" in str(error) or "is " in str(error)


def toml(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return repr(value).replace("'", '"') if isinstance(value, str) else str(value)


def test_nothing_said_means_the_targets_own_recipe(registry, cpu):
    recipe = resolve(Request(), cpu, registry)
    assert tuple(m.name for m in recipe.methods) == cpu.recipe
    assert (recipe.written, recipe.runtimes, recipe.batch, recipe.threads) == (False, ("ort",), 1, 1)


def test_auto_races_only_what_the_target_lists_and_more_can_be_added(registry, cpu):
    assert resolve(Request(runtime=("auto", "null")), cpu, registry).runtimes == ("ort", "null")


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (Request(apply=(MethodCall("quantise"),)), "no transform named 'quantise'.*did you mean 'quantize'"),
        (Request(apply=(MethodCall("quantize", {"mod": "x"}),)), "quantize has no parameter 'mod'"),
        (Request(runtime=("tvmm",)), "no runtime named 'tvmm'"),
        (Request(tune=5), "--tune does nothing for onnx; exporters that tune: tvm"),
        (Request(tune=-1, exporter=("tvm",)), "--tune -1 is out of range; allowed: 0 to 86400"),
        (Request(exporter=("onxx",)), "no exporter named 'onxx'.*did you mean 'onnx'"),
        (Request(batch=0), "--batch 0 is out of range; allowed: 1 to 65536"),
        (Request(threads=-1), "--threads -1 is out of range"),
        (Request(seed=-1), "--seed -1 is out of range"),
    ],
)
def test_what_does_not_exist_is_refused_with_the_nearest(registry, cpu, request_, sentence):
    with pytest.raises(RecipeError, match=sentence):
        resolve(request_, cpu, registry)


def names(methods):
    return [m.name for m in methods]


def test_lower_is_put_where_a_torch_model_needs_it(registry, cpu):
    methods = resolve(Request(apply=(MethodCall("quantize"),)), cpu, registry).methods
    assert names(ordered(methods, "torch", registry)) == ["lower", "quantize"]
    assert names(ordered(methods, "onnx", registry)) == ["quantize"]
    assert names(ordered((), "torch", registry)) == ["lower"]


def test_lift_is_put_before_a_method_that_needs_torch(registry, cpu):
    methods = resolve(Request(apply=(MethodCall("lower"),)), cpu, registry).methods
    assert names(ordered(methods, "onnx", registry)) == ["lift", "lower"]
