"""From a screened `.pt2` file to a module, the names of its inputs and the examples saved with it."""

from __future__ import annotations

import hashlib
import io
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgewright.errors import ModelError
from edgewright.types import Arrays
from edgewright_plugins.loaders.pt2_screen import screen
from edgewright_plugins.loaders.torch_examples import Examples, named_arrays
from edgewright_plugins.loaders.torch_module import argument_names


@dataclass(frozen=True, eq=False)
class Program:
    """What a `.pt2` file holds; `sizes` are the fixed ones per input, None where a size is free."""

    module: nn.Module
    names: list[str]
    examples: Examples
    sizes: dict[str, tuple[int | None, ...]]
    digest: str

    def check_sizes(self, source: str, example: Arrays) -> None:
        """Raises: ModelError when an input has another size than the program was exported with."""
        for name, array in example.items():
            want = self.sizes.get(name, array.shape)
            if len(want) != array.ndim or any(w not in (None, have) for w, have in zip(want, array.shape, strict=True)):
                fixed = ", ".join("any" if size is None else str(size) for size in want)
                raise ModelError(
                    f"{source}: {name} is {list(array.shape)}, but the program was exported for [{fixed}]; "
                    "export it again with dynamic_shapes, or leave --batch and --shape out"
                )


def read_program(path: Path) -> Program:
    """The program in a `.pt2` file. Raises: ModelError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    screen(data, str(path))
    program = _load(data, path)
    module = program.module(check_guards=False)
    names = argument_names(module)
    args, kwargs = program.example_inputs or ((), {})
    values = [*args, *kwargs.values()]
    if any(not isinstance(value, Tensor) for value in values):
        raise ModelError(f"{path} takes more than plain tensors; export a module whose inputs are tensors")
    examples = named_arrays(tuple(values), names, where=str(path)) if values else {}
    return Program(module, names, examples, _sizes(program, names), hashlib.sha256(data).hexdigest())


def _load(data: bytes, path: Path) -> ExportedProgram:
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        return torch.export.load(io.BytesIO(data))
    except Exception as error:
        raise ModelError(f"{path} cannot be loaded by torch {torch.__version__}: {error}") from error
    finally:
        logger.setLevel(level)


def _sizes(program: ExportedProgram, names: list[str]) -> dict[str, tuple[int | None, ...]]:
    inputs = set(program.graph_signature.user_inputs)
    shapes = [
        node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs
    ]
    return {
        name: tuple(size if isinstance(size, int) else None for size in shape)
        for name, shape in zip(names, shapes, strict=False)
    }
