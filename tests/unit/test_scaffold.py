"""New plugins: what is written, and which names are refused with the nearest one that will do."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.errors import OutputError, RecipeError
from edgewright.hookspecs import API
from edgewright.registry import Registry
from edgewright.registry.kinds import KINDS
from edgewright.scaffold import LONGEST, WITHOUT, create, kinds


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The built-ins alone."""
    return Registry(only=())


def test_every_kind_has_a_template_or_a_reason_why_not():
    assert {kind.noun for kind in KINDS} == {*kinds(), *WITHOUT}
    assert not set(kinds()) & set(WITHOUT)


@pytest.mark.parametrize("noun", kinds())
def test_a_package_is_complete_and_nothing_is_left_to_fill_in(noun, registry, tmp_path):
    files = create("my-thing", noun, tmp_path, registry)
    folder = tmp_path / "my-thing"
    places = {file.relative_to(folder).as_posix() for file in files}
    wanted = {"pyproject.toml", "README.md", ".github/workflows/test.yml", "tests/test_conformance.py"}
    assert places == {*wanted, "my_thing/__init__.py", f"my_thing/{noun}.py", f"tests/test_{noun}.py"}
    assert f"EDGEWRIGHT_API = {API}" in (folder / "my_thing/__init__.py").read_text()
    for file in files:
        assert "$" not in file.read_text().replace("$3", "").replace('"$@"', "").replace("${HOME:", ""), file


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("My Method", "such as 'my-method'"),
        ("MyMethod", "such as 'my-method'"),
        ("my_method", "such as 'my-method'"),
        ("2fast", "such as 'my-2fast'"),
        ("../up", "such as 'up'"),
        ("m" * (LONGEST + 1), f"such as '{'m' * LONGEST}'"),
        ("", "such as 'my-method'"),
        ("lambda", "Python has another 'lambda'"),
        ("json", "Python has another 'json'; choose one such as 'my-json'"),
        ("numpy", "Python has another 'numpy'"),
        ("quantize", "offers a transform named 'quantize'; choose one such as 'my-quantize'"),
        ("edgewright", "a plugin named 'edgewright' is installed"),
    ],
)
def test_a_name_that_will_not_do_is_refused_with_one_that_will(name, sentence, registry, tmp_path):
    with pytest.raises(RecipeError, match=r"^[^\n]*$") as refused:
        create(name, "transform", tmp_path, registry)
    assert sentence in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_kind_that_is_none_is_refused_with_the_nearest(registry, tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'meter'"):
        create("my-thing", "metre", tmp_path, registry)
    with pytest.raises(RecipeError, match="no template for a predictor"):
        create("my-thing", "predictor", tmp_path, registry)


def test_nothing_that_is_there_is_overwritten(registry, tmp_path):
    (tmp_path / "my-thing").mkdir()
    with pytest.raises(OutputError, match="is there already"):
        create("my-thing", "meter", tmp_path, registry)
    assert list((tmp_path / "my-thing").iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(registry, tmp_path):
    Path(tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        create("my-thing", "meter", tmp_path / "file", registry)
