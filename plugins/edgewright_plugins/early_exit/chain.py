"""Makes the chain of a net with exits: stages with their names, once they are known to compute what the net does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from edgewright import types
from edgewright.errors import RefusedError
from edgewright.numerics import Difference, worst
from edgewright.types import Model, Stage, TorchGraph
from edgewright_plugins.early_exit.gate import MEMORY
from edgewright_plugins.early_exit.net import Seen
from edgewright_plugins.early_exit.split import Chain, Part, StageModule

LIMIT = 1e-4
"""The largest error of an answer over its scale between the chain and the net: they sum in the same order."""


def stages_of(model: Model, chain: Chain, text: str) -> tuple[Stage, ...]:
    """The stages of a chain. `text` is all they depend on besides the model: it goes into their digests.

    Stages after the first take no input of the model where they compute the same without; else all of them.

    Raises: RefusedError when a stage needs more of what came before than is handed on.
    """
    inputs = random_inputs(model)
    with torch.no_grad():
        seen = chain.eval().net(*inputs)
    differences: list[Difference] = []
    for given in (0, len(inputs)):
        modules, returned = run_parts(chain, inputs, given)
        differences.append(_difference(chain, seen, returned))
        if differences[-1].max_rel <= LIMIT:
            return tuple(_named(model, modules, returned, given, text))
    raise RefusedError(
        f"{model.name} cannot be cut after its blocks: answers of the pieces differ from the network's by "
        f"{differences[-1].max_rel:.2g} of their scale, since a later block needs more than what the block before it "
        "gives; name other blocks (anatomy entry of the task), or cut elsewhere (at=...)"
    )


def random_inputs(model: Model) -> list[Tensor]:
    """Inputs of the example's shapes: numbers spread as the example's, whole numbers in another order.

    An example of zeros says nothing of its spread; any other constant is one (a mask, say) and stays.
    """
    generator = torch.Generator().manual_seed(0)
    found: list[Tensor] = []
    for spec in model.signature.inputs:
        tensor = torch.tensor(model.example[spec.name])
        if tensor.is_floating_point():
            spread = tensor.std(correction=0) if tensor.any() else torch.ones(())
            noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
            found.append(tensor.mean() + spread * noise)
        else:
            found.append(tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape))
    return found


def run_parts(chain: Chain, inputs: Sequence[Tensor], given: int) -> tuple[list[StageModule], list[tuple[Tensor, ...]]]:
    """The modules of the stages, and what each returned on what the one before it handed on.

    Args:
        chain: in evaluation mode.
        inputs: the model's.
        given: how many of them later stages take.
    """
    modules: list[StageModule] = []
    returned: list[tuple[Tensor, ...]] = []
    carried: tuple[Tensor, ...] = ()
    for part in parts_of(chain, len(inputs), given):
        modules.append(StageModule(chain, replace(part, states=_states(chain, part, carried))).eval())
        with torch.no_grad():
            returned.append(modules[-1](*inputs[: part.inputs], *carried))
        carried = returned[-1][1:-1]
    return modules, returned


def parts_of(chain: Chain, inputs: int, given: int) -> Iterator[Part]:
    """The parts of a chain; how many states each takes is not known yet."""
    starts = [0, *(end + 1 for end in chain.exits), len(chain.net.cuts)]
    last = len(chain.exits)
    for number, (start, stop) in enumerate(pairwise(starts)):
        # Behind its last side, and behind its last gate, a chain has no use for what these hand on.
        tells = (stop < len(chain.net.cuts), number + 1 < last)
        done = chain.blocks[: chain.blocks.index(chain.net.cuts[start - 1].path)] if number else ()
        yield Part(start, stop, number if number < last else None, given if number else inputs, tells=tells, done=done)


def _states(chain: Chain, part: Part, carried: Sequence[Tensor]) -> int:
    """How many of the tensors that a part is handed are states of sides."""
    remembered = len(MEMORY[chain.rule]) if part.gate else 0
    return max(0, len(carried) - 1 - remembered)


def _difference(chain: Chain, seen: Seen, returned: Sequence[Sequence[Tensor]]) -> Difference:
    """How far the answers of the stages are from the net's."""
    want = [tensor.numpy() for tensor in chain.answers(seen)]
    return worst([str(number) for number in range(len(want))], want, [each[0].numpy() for each in returned])


def _named(
    model: Model, modules: Sequence[StageModule], returned: Sequence[Sequence[Tensor]], given: int, text: str
) -> Iterator[Stage]:
    """The stages, with names that no tensor of the model has."""
    signature, rule = model.signature, modules[0].chain.rule
    outputs = tuple(spec.name for spec in signature.outputs)
    inputs = tuple(spec.name for spec in signature.inputs)
    taken = {*inputs, *outputs}
    for number, (module, tensors) in enumerate(zip(modules, returned, strict=True), 1):
        gated = module.part.gate is not None
        memory = MEMORY[rule] if module.part.tells[1] else ()
        states = len(tensors) - len(("answer", "hidden", "score")) - len(memory)
        kinds = ("hidden", *(f"state{i}" for i in range(states)), *memory) if gated else ()
        name = f"exit{number}" if gated else "final"
        yield Stage(
            name,
            TorchGraph(module, hashlib.sha256(f"{text} {model.digest} {name}".encode()).hexdigest()),
            inputs if number == 1 or given else (),
            outputs,
            tuple(free_name(f"{kind}_{number}", taken) for kind in kinds),
            types.Gate(free_name("score", taken), rule) if gated else None,
        )


def free_name(name: str, taken: set[str]) -> str:
    """`name`, or the same with lines under it until nothing else is called so."""
    while name in taken:
        name += "_"
    return name


def with_stages(model: Model, stages: tuple[Stage, ...]) -> Model:
    """The model as a chain of these stages."""
    return replace(model, variants=(replace(model.variants[0], stages=stages),))
