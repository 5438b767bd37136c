"""Examines a network: runs it, finds its blocks, reads each, and puts the parts together."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, fx, nn

from edgewright.errors import RefusedError, TaskError
from edgewright.torchkit.anatomy.blocks import Span, find_blocks
from edgewright.torchkit.anatomy.describe import FORMAT, PLACE, Description, described
from edgewright.torchkit.anatomy.ends import find_head, find_layout, find_stages, find_stem, stage_numbers, with_reads
from edgewright.torchkit.anatomy.inside import read_block
from edgewright.torchkit.anatomy.parts import Anatomy
from edgewright.torchkit.anatomy.probe import fixed_tokens, positions_read
from edgewright.torchkit.anatomy.record import record
from edgewright.torchkit.anatomy.trace import Trace


def examine_module(module: nn.Module, inputs: Sequence[Tensor], said: Description) -> Anatomy:
    """The parts of `module`, seen as it runs on `inputs`. Raises: RefusedError, TaskError, what the module raises."""
    trace = record(module, inputs)
    spans = described_spans(said, trace) if said.blocks else find_blocks(module, trace)
    if not spans:
        raise RefusedError(refusal(module))
    read = [read_block(span, trace, stage) for span, stage in zip(spans, stage_numbers(spans), strict=True)]
    blocks = tuple(described(block, said, module, trace) for block in read)
    axis = 0 if find_layout(blocks[0], spans[0], trace) == "tokens_first" else 1
    if said.prefix_tokens is None:
        fixed = fixed_tokens(module, inputs, [block.path for block in blocks], axis)
    else:
        fixed = dict.fromkeys((block.path for block in blocks), said.prefix_tokens)
    stages = tuple(find_stages(spans, blocks, trace, fixed, said.grid))
    last = max(spans, key=lambda span: span.done)
    head = find_head(last, trace, stages[-1], said.head)
    if head and not head.pooling:
        head = with_reads(head, positions_read(module, inputs, last.last.path, head.outputs, axis=axis), stages[-1])
    return Anatomy(said.stem or find_stem(spans[0], trace), blocks, head, stages)


def described_spans(said: Description, trace: Trace) -> list[Span]:
    """The blocks that the user names, in call order. Raises: TaskError when one did not run."""
    spans: list[Span] = []
    for path in said.blocks:
        calls = trace.calls_of(path)
        if not calls:
            raise TaskError(
                f"{PLACE} has the block {path!r}, which the example did not run; name modules that are called"
            )
        spans.append(Span(calls[0], calls[0], calls[-1].end, len(calls)))
    return sorted(spans, key=lambda span: span.first.at)


def refusal(module: nn.Module) -> str:
    """Why no blocks were found, and what would help."""
    children = [f"{name} ({type(child).__name__})" for name, child in module.named_children()]
    shown = ", ".join(children[:5]) + (", ..." if len(children) > 5 else "")
    asked = (
        f"the blocks of {type(module).__name__} cannot be told: looked for repeated modules of one kind that work on "
        f"each other's results, and for a chain of convolutions, and found {shown or 'no modules in it'}"
    )
    if isinstance(module, fx.GraphModule):
        return f"{asked}; this is a flat graph, which calls its layers alone: give the network as a torch module"
    return f"{asked}; describe the network in {PLACE}, like {FORMAT}"
