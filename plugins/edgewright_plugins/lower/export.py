"""From one torch module to one ONNX graph."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Generator, Sequence
from typing import Any

import onnx
import torch
from torch import nn

from edgewright.errors import RefusedError
from edgewright.torchkit.fakequant_settle import settle
from edgewright.types import Arrays
from edgewright_plugins.lower import gating
from edgewright_plugins.lower.integers import with_integers
from edgewright_plugins.lower.rounding import rounds, translations

OPSET = 20
"""What torch's exporter writes for without converting; onnxruntime 1.17 and later load it."""


class ByPosition(nn.Module):
    """Calls a module with all it is given: so the shapes of its arguments can be stated without their names."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: torch.Tensor) -> Any:
        """What the module returns."""
        return self.module(*tensors)


def lower_module(
    module: nn.Module, inputs: Arrays, outputs: Sequence[str], *, free_rows: bool = False
) -> onnx.ModelProto:
    """The ONNX graph of `module` for inputs of just these shapes, names as given, free of source traces.

    What the module rounds (`torchkit.fakequant`) is integers in the graph, and the graph computes what `settled` does.

    Args:
        module: in evaluation mode; takes tensors by position, returns a tensor or a flat tuple of them.
        inputs: one array per argument, in order.
        outputs: a name for each tensor it returns.
        free_rows: leave axis 0 of everything open, as far as the module lets it be.

    Raises: RefusedError naming the operators that have no ONNX form, or why the module cannot be captured.
    """
    tensors = tuple(torch.tensor(array) for array in inputs.values())
    rounded = rounds(module)
    module = settled(module, inputs)
    rows = (tuple({0: torch.export.Dim.AUTO} for _ in tensors),) if free_rows else None
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                ByPosition(module).eval() if free_rows else module,
                tensors,
                dynamo=True,
                dynamic_shapes=rows,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                verbose=False,
                custom_translation_table={**gating.translations(), **(translations() if rounded else {})},
            )
    except torch.onnx.OnnxExporterError as error:
        raise RefusedError(_reason(error)) from error
    if program is None:
        raise RefusedError("torch.onnx.export gave no program")
    proto = _bare(program.model_proto)
    return with_integers(proto) if rounded else proto


def settled(module: nn.Module, inputs: Arrays) -> nn.Module:
    """The module that the graph computes: of integers where it rounds, without what only training needs."""
    module = gating.settled(module)
    if not rounds(module):
        return module
    # Where norms and roundings stand is seen by running; the caller's module stays as it is.
    return settle(copy.deepcopy(module), tuple(torch.tensor(array) for array in inputs.values()))


def run_module(module: nn.Module, inputs: Arrays) -> list[torch.Tensor]:
    """What `module` returns for `inputs`, given by position, as a flat list."""
    with torch.no_grad():
        result = module(*(torch.tensor(array) for array in inputs.values()))
    return [tensor.detach() for tensor in ([result] if isinstance(result, torch.Tensor) else result)]


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    """The exporter prints, logs and warns about what the caller of `lower_module` gets to know anyway."""
    logger = logging.getLogger("torch")
    level = logger.level
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """One sentence out of a chain of causes that runs to pages."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(chain[-1]))
    if missing:
        return f"ONNX has no form of the operator {missing[1]}; replace it in the model by others"
    first = next(iter(str(chain[-1]).strip().splitlines()), type(chain[-1]).__name__)
    advice = "; control flow on tensor values has to become torch.where or torch.cond" if "data-dep" in first else ""
    return f"torch.export cannot capture the module: {first.rstrip('. ')}{advice}"


def _bare(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Without what names files and lines of this host, and without shapes of inner values, which go stale."""
    graph = proto.graph
    del graph.value_info[:]
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    return proto
