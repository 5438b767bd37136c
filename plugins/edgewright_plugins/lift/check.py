"""Proves a lifted module against its ONNX graph: the outputs, the node that went astray, other batch sizes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import onnx
import torch

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.numerics import Difference, difference, worst
from edgewright.types import Array, Arrays
from edgewright_plugins.lift.build import Lifted, lift_graph
from edgewright_plugins.lower.export import run_module

LIMIT = 1e-4
"""The largest error of an output over its scale; reordered float32 sums stay a hundred times below."""


INTEGER_LIMIT = 0.05
"""The same for graphs that round to integers: a sum near a half tips over to the next code."""


def lift_checked(proto: onnx.ModelProto, example: Arrays) -> tuple[torch.fx.GraphModule, Difference, str]:
    """The module, its worst output against `proto`, and why the batch is fixed ("" when it is free).

    Raises: RefusedError naming the operators without a torch form, or the first node that differs by more
    than its limit.
    """
    lifted = lift_graph(proto, example)
    found = checked(proto, lifted, example)
    problem = batch_problem(lifted.module, example)
    if problem:
        # a batch that runs and gives wrong rows is worse than one that is refused
        lifted = lift_graph(proto, example, free_batch=False)
    return lifted.module, found, problem


def checked(proto: onnx.ModelProto, lifted: Lifted, example: Arrays) -> Difference:
    """The worst output. Raises: RefusedError beyond the limit, naming the first node that is off."""
    names = [value.name for value in proto.graph.output]
    want = next(onnxkit.run(onnxkit.pack(proto), [example], names))
    got = [tensor.numpy() for tensor in run_module(lifted.module, example)]
    found = worst(names, want, got)
    limit = INTEGER_LIMIT if any(node.op_type == "QuantizeLinear" for node in proto.graph.node) else LIMIT
    if found.max_rel > limit:
        raise RefusedError(
            f"the lifted output {found.name!r} differs from the ONNX graph by {found.max_abs:.3g}, "
            f"{found.max_rel:.2g} of its scale (allowed: {limit:g}); {first_astray(proto, lifted, example)}; "
            "use methods that take ONNX on this model"
        )
    return found


def first_astray(proto: onnx.ModelProto, lifted: Lifted, example: Arrays) -> str:
    """Names the first node whose output is beyond `LIMIT`, in the order of the graph."""
    origin = {name: node for node in proto.graph.node for name in node.output if name in lifted.values}
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    shown = {value.name for value in proto.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in origin if name not in shown)
    values = next(onnxkit.run(onnxkit.pack(probe), [example], list(origin)))
    for (name, node), value in zip(origin.items(), values, strict=True):
        if difference(name, value, lifted.values[name].numpy()).max_rel > LIMIT:
            return f"the first operator that differs is {node.op_type} at node {node.name or name!r}"
    return "no single operator differs by as much"


def batch_problem(module: torch.fx.GraphModule, example: Arrays) -> str:
    """Why `module` does not take two batches at once, each row as if it came alone; "" when it does."""
    if any(array.ndim == 0 for array in example.values()):
        return "an input has no axis for a batch"
    other = {name: np.ascontiguousarray(np.flip(array, -1)) for name, array in example.items()}
    both = {name: np.concatenate([array, other[name]]) for name, array in example.items()}
    alone = [*zip(_outputs(module, example), _outputs(module, other), strict=True)]
    try:
        # fx prints the source of a module that fails
        with contextlib.redirect_stderr(io.StringIO()):
            together = _outputs(module, both)
    except (RuntimeError, IndexError, ValueError) as error:
        return str(error).splitlines()[0]
    return "" if _rows_agree(together, alone) else "rows of a larger batch come out differently"


def _outputs(module: torch.fx.GraphModule, inputs: Arrays) -> list[Array]:
    return [tensor.numpy() for tensor in run_module(module, inputs)]


def _rows_agree(together: Sequence[Array], alone: Sequence[tuple[Array, Array]]) -> bool:
    return all(
        pair[0].ndim > 0 and difference("", np.concatenate(pair), both).max_rel <= LIMIT
        for both, pair in zip(together, alone, strict=True)
    )
