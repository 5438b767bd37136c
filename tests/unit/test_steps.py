"""Steps: what their cache key depends on, and what a cached result takes over."""

from __future__ import annotations

import importlib.util
import sys

from edgewright.deploying.steps import code_of


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module.Method()


def test_editing_a_method_makes_its_old_results_worthless(tmp_path):
    path = tmp_path / "method.py"
    path.write_text("class Method:\n    factor = 1\n")
    first = code_of(load(path, "a_users_method"))
    assert code_of(load(path, "a_users_method")) == first
    path.write_text("class Method:\n    factor = 2\n")
    assert code_of(load(path, "a_users_method")) != first


def test_a_method_that_is_a_folder_is_keyed_by_all_of_it(tmp_path):
    (tmp_path / "__init__.py").write_text("class Method:\n    pass\n")
    (tmp_path / "part.py").write_text("A = 1\n")
    first = code_of(load(tmp_path / "__init__.py", "a_users_folder"))
    (tmp_path / "part.py").write_text("A = 2\n")
    assert code_of(load(tmp_path / "__init__.py", "a_users_folder")) != first
