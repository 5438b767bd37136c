"""The loaders of torch modules: signatures, names, digests, and every refusal; the example networks."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.errors import ModelError
from edgewright.protocols import LoadRequest, NoParams
from edgewright.store import Store
from edgewright.task import TOP1, Task, top1
from edgewright.types import Model, TensorSpec

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 - torch is optional

from edgewright_plugins.loaders.pt2 import PT2  # noqa: E402
from edgewright_plugins.loaders.pt2_screen import screen  # noqa: E402
from edgewright_plugins.loaders.torch_file import TORCH_FILE  # noqa: E402
from edgewright_plugins.lower import LOWER  # noqa: E402
from edgewright_plugins.lower.export import run_module  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples"

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        nn.init.constant_(self.fc.weight, scale)
        self.drop = nn.Dropout(0.5)

    def forward(self, image, weight=None):
        y = self.drop(self.fc(image))
        return y if weight is None else y * weight

def model():
    torch.manual_seed(0)
    return Net()

made = Net()
"""

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(code: str, name: str = "net.py") -> str:
        (tmp_path / name).write_text(code)
        return str(tmp_path / name)

    return write


def request(tmp_path: Path, **given: Any) -> LoadRequest:
    return LoadRequest(store=Store(tmp_path), shapes=given.pop("shapes", {}), **given)


def load(source: str, tmp_path: Path, **given: Any) -> Model:
    return TORCH_FILE.load(source, request(tmp_path, **given))


def test_sources_are_told_by_their_form() -> None:
    assert TORCH_FILE.accepts("some/net.py:model")
    assert not TORCH_FILE.accepts("net.py")
    assert PT2.accepts("net.pt2")
    assert not PT2.accepts("net.onnx")


def test_loaders_are_listed_without_importing_torch() -> None:
    parts = ", ".join(f"edgewright_plugins.{name}" for name in ("loaders", "lower", "lift"))
    code = f"import sys, {parts}; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_callable_becomes_a_model_with_forwards_names(write: Write, tmp_path: Path) -> None:
    code = NET + "def example_inputs():\n    return torch.ones(1, 4)\n"
    model = load(f"{write(code)}:model", tmp_path)
    assert model.name == "net"
    assert model.signature.inputs == (TensorSpec("image", "float32", (1, 4)),)
    assert model.signature.outputs == (TensorSpec("output", "float32", (1, 3)),)
    assert not model.graph.module.training
    assert model.stages[0].inputs == ("image",)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("torch.ones(1, 4), torch.ones(1, 3)", ["image", "weight"]),
        ("{'image': torch.ones(1, 4), 'weight': torch.ones(1, 3)}", ["image", "weight"]),
        ("{'weight': torch.ones(1, 3), 'image': torch.ones(1, 4)}", ["image", "weight"]),
    ],
)
def test_example_inputs_may_be_a_tuple_or_a_dict(write: Write, tmp_path: Path, given: str, names: list[str]) -> None:
    model = load(f"{write(NET + f'def example_inputs(): return {given}')}:model", tmp_path)
    assert [spec.name for spec in model.signature.inputs] == names


def test_a_module_or_a_class_may_be_named_too(write: Write, tmp_path: Path) -> None:
    path = write(NET + "def example_inputs(): return torch.ones(1, 4)")
    assert load(f"{path}:made", tmp_path).name == "net-made"
    assert load(f"{path}:Net", tmp_path).format == "torch"


def test_the_digest_covers_code_and_weights(write: Write, tmp_path: Path) -> None:
    code = NET + "def example_inputs(): return torch.ones(1, 4)\n"
    path = write(code)
    first = load(f"{path}:model", tmp_path).digest
    assert load(f"{path}:model", tmp_path).digest == first
    write(code + "# a remark\n")
    assert load(f"{path}:model", tmp_path).digest != first
    write(code)
    torch.save(nn.Linear(4, 3).state_dict(), tmp_path / "weights.pt")
    weights = "def tuned():\n    net = Net()\n    net.fc.load_state_dict(torch.load('WEIGHTS'))\n    return net\n"
    write(code + weights.replace("WEIGHTS", str(tmp_path / "weights.pt")))
    before = load(f"{path}:tuned", tmp_path).digest
    torch.save(nn.Linear(4, 3).state_dict(), tmp_path / "weights.pt")
    assert load(f"{path}:tuned", tmp_path).digest != before


def test_the_tasks_first_examples_come_before_the_files(write: Write, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 4)).astype(np.float32), np.zeros(40, np.int64)
    task = Task.from_arrays({"x": x}, y, metric=TOP1, score=top1)
    model = load(f"{write(NET)}:model", tmp_path, task=task, batch=2)
    first = next(iter(task.batches("calibration", 2))).inputs["x"]
    np.testing.assert_array_equal(model.example["image"], first)


def test_shape_and_batch_are_fixed_as_asked(write: Write, tmp_path: Path) -> None:
    path = write(NET + "def example_inputs(): return torch.ones(1, 4)")
    assert load(f"{path}:model", tmp_path, batch=3).signature.outputs[0].shape == (3, 3)
    shaped = load(f"{path}:model", tmp_path, shapes={"image": (2, 5, 4)})
    assert shaped.signature.inputs[0].shape == (2, 5, 4)
    again = load(f"{path}:model", tmp_path, shapes={"image": (2, 5, 4)})
    np.testing.assert_array_equal(shaped.example["image"], again.example["image"])


def test_noise_for_token_ids_stays_in_their_range(write: Write, tmp_path: Path) -> None:
    code = "import torch\nmodel = torch.nn.Embedding(10, 4)\ndef example_inputs(): return torch.tensor([[1, 9]])\n"
    model = load(f"{write(code)}:model", tmp_path, shapes={"input": (1, 7)})
    assert set(model.example["input"].reshape(-1).tolist()) <= {1, 9}
    assert model.signature.inputs[0] == TensorSpec("input", "int64", (1, 7))


BAD = {
    "has no example inputs: add a function example_inputs": ("", "model"),
    "has no model named 'modle'.*did you mean 'model'": ("", "modle"),
    "gives int; it must give a torch.nn.Module": ("number = 3", "number"),
    "failed on its example inputs \\(image float32 \\[1, 5\\]\\).*; inputs of another kind come from --task": (
        "def example_inputs(): return torch.ones(1, 5)",
        "model",
    ),
    "has no argument 'imag'; .*did you mean 'image'": (
        "def example_inputs(): return {'imag': torch.ones(1, 4)}",
        "model",
    ),
    "gives 3 tensors, but forward takes 2": ("def example_inputs(): return (torch.ones(1, 4),) * 3", "model"),
    "gives str; an example input is a tensor": ("def example_inputs(): return 'image'", "model"),
    "example_inputs failed: ZeroDivisionError": ("def example_inputs(): return 1 / 0", "model"),
    "could not be imported: NameError": ("nonsense", "model"),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_used_is_said_in_one_sentence(write: Write, tmp_path: Path, message: str) -> None:
    code, name = BAD[message]
    with pytest.raises(ModelError, match=message):
        load(f"{write(NET + code)}:{name}", tmp_path)


def test_a_module_that_returns_no_tensors_is_refused(write: Write, tmp_path: Path) -> None:
    code = "import torch\nclass Odd(torch.nn.Module):\n    def forward(self, x): return VALUE\n"
    code += "def example_inputs(): return torch.ones(1)\n"
    for value, message in (("'text'", "returns str"), ("None", "returns no tensor")):
        with pytest.raises(ModelError, match=message):
            load(f"{write(code.replace('VALUE', value))}:Odd", tmp_path)


STRUCTURED = """
import torch

class Net(torch.nn.Module):
    def forward(self, *, first, second):
        return {"first": first + second, "all": (first, [second, None])}

def example_inputs():
    return {"first": torch.ones(1, 2), "second": torch.zeros(1, 2)}
"""


def test_keywords_in_and_dicts_out_are_put_behind_the_calling_convention(write: Write, tmp_path: Path) -> None:
    model = load(f"{write(STRUCTURED)}:Net", tmp_path)
    assert [spec.name for spec in model.signature.outputs] == ["first_1", "all", "all_1"]
    outputs = run_module(model.graph.module, model.example)
    assert [float(tensor.sum()) for tensor in outputs] == [2, 2, 0]
    lowered = LOWER.apply(model, NoParams(), Store(tmp_path))
    assert lowered.history[0].details["max_abs"] == 0


@pytest.mark.parametrize(("name", "count"), [("mobilenet_v2", 3_504_872), ("deit_tiny", 5_717_416)])
def test_the_example_networks_have_the_papers_sizes(tmp_path: Path, name: str, count: int) -> None:
    model = load(f"{EXAMPLES / name}.py:model", tmp_path)
    assert sum(parameter.numel() for parameter in model.graph.module.parameters()) == count
    assert model.signature.inputs == (TensorSpec("image", "float32", (1, 3, 224, 224)),)
    assert model.signature.outputs == (TensorSpec("output", "float32", (1, 1000)),)
    logits = run_module(model.graph.module, model.example)[0]
    assert 0.3 < float(logits.std()) < 10


def test_a_transformers_model_loads_and_lowers(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    code = """
import torch
from transformers import BertConfig, BertForSequenceClassification

def model():
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    ))

def example_inputs():
    ids = torch.arange(1, 9)[None]
    return {"input_ids": ids, "token_type_ids": torch.zeros_like(ids)}
"""
    model = load(f"{write(code)}:model", tmp_path)
    assert [spec.name for spec in model.signature.inputs] == ["input_ids", "token_type_ids"]
    assert [spec.name for spec in model.signature.outputs] == ["logits"]
    assert LOWER.apply(model, NoParams(), Store(tmp_path)).history[0].details["max_rel"] < 1e-4


# ------------------------------------------------------------------ exported programs


def exported(path: Path, **options: Any) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    program = torch.export.export(net, (torch.ones(2, 1, 4, 4),), **options)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("pt2") / "fixed.pt2")


def changed(path: Path, tmp_path: Path, ending: str, change: Callable[[bytes], bytes]) -> str:
    """A copy of an archive with the member that ends so changed; added when there is none."""
    copy = tmp_path / "changed.pt2"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, change(data) if name.endswith(ending) else data)
        if not any(name.endswith(ending) for name in source.namelist()):
            target.writestr(f"fixed/{ending}", change(b""))
    return str(copy)


def test_a_program_becomes_a_model_that_lowers(program: Path, tmp_path: Path) -> None:
    model = PT2.load(str(program), request(tmp_path))
    assert model.signature.inputs == (TensorSpec("input", "float32", (2, 1, 4, 4)),)
    assert model.digest == PT2.load(str(program), request(tmp_path)).digest
    assert LOWER.apply(model, NoParams(), Store(tmp_path)).history[0].details["max_rel"] < 1e-5


def test_a_program_runs_at_the_sizes_it_was_exported_for(program: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"input is \[3, 1, 4, 4\], but the program was exported for \[2, 1, 4, 4\]"):
        PT2.load(str(program), request(tmp_path, batch=3))
    free = exported(tmp_path / "free.pt2", dynamic_shapes=({0: torch.export.Dim("rows", max=64)},))
    assert PT2.load(str(free), request(tmp_path, batch=3)).signature.outputs[0].shape == (3, 3)


def pickled_call(_: bytes) -> bytes:
    """A torch file whose pickle calls print."""

    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("ran",)

    buffer = io.BytesIO()
    torch.save((Call(),), buffer)
    return buffer.getvalue()


def with_program(edit: Callable[[Any], None]) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        program = json.loads(data)
        edit(program)
        return json.dumps(program).encode()

    return change


def call_hub(program: Any) -> None:
    program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.hub.load"


def size_that_runs(program: Any) -> None:
    program["graph_module"]["graph"]["tensor_values"]["relu"]["sizes"][0] = {"as_expr": {"expr_str": "exit()"}}


def guard_that_runs(program: Any) -> None:
    program["guards_code"] = ["().__class__"]


def name_that_is_code(program: Any) -> None:
    program["graph_module"]["graph"]["nodes"][0]["name"] = "x = exit()"


def strange_container(program: Any) -> None:
    program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = '[1, {"type": "os.path", "context": ""}]'


UNSAFE = {
    "holds a pickle of more than tensors": ("sample_inputs/model.pt", pickled_call),
    "holds target 'torch.hub.load'": ("models/model.json", with_program(call_hub)),
    r"holds expr_str 'exit\(\)'": ("models/model.json", with_program(size_that_runs)),
    "holds guards_code": ("models/model.json", with_program(guard_that_runs)),
    "holds name 'x = exit": ("models/model.json", with_program(name_that_is_code)),
    "holds out_spec": ("models/model.json", with_program(strange_container)),
    "holds two members of one name": ("models/Model.json", lambda _: b"{}"),
    "holds compiled code": ("data/aotinductor/model/net.so", lambda _: b"\x7fELF"),
    "as a pickle, which could run code": (
        "model_weights_config.json",
        lambda data: data.replace(b'"use_pickle": false', b'"use_pickle": true', 1),
    ),
}


@pytest.mark.parametrize("message", UNSAFE)
def test_a_program_that_could_run_code_is_refused_before_torch_reads_it(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        PT2.load(changed(program, tmp_path, *UNSAFE[message]), request(tmp_path))
    assert capsys.readouterr().out == ""


def test_damaged_and_missing_programs_are_refused(program: Path, tmp_path: Path) -> None:
    data = program.read_bytes()
    for bad in (b"", b"no archive", data[: len(data) // 2]):
        with pytest.raises(ModelError, match="is not an archive"):
            screen(bad, "net.pt2")
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        PT2.load(str(tmp_path / "none.pt2"), request(tmp_path))
    with pytest.raises(ModelError, match="is not an archive"):
        screen(changed_bytes(program, tmp_path, b"{"), "net.pt2")
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    with pytest.raises(ModelError, match="holds no exported program"):
        screen(empty.getvalue(), "net.pt2")


def changed_bytes(program: Path, tmp_path: Path, content: bytes) -> bytes:
    return Path(changed(program, tmp_path, "models/model.json", lambda _: content)).read_bytes()
