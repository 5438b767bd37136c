"""A backbone with sides at its cuts: everything that training looks at, in one run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from edgewright.errors import RefusedError
from edgewright.torchkit.losses import outputs_of
from edgewright_plugins.early_exit.side import Answer, Cut, Side, ask

Change = Callable[[Tensor], Tensor]
"""What goes on in the place of what came."""


@dataclass(frozen=True, eq=False)
class Seen:
    """One run: the logits [b, classes] of every exit, the final answer last, and what distillation compares.

    `own` is what the backbone's own head gives; `hidden` is what its last block gave; `features` has one entry per
    side; `at` holds the numbers of the sides that gave logits.
    """

    logits: tuple[Tensor, ...]
    own: Tensor
    hidden: Tensor
    features: tuple[Tensor | None, ...]
    at: tuple[int, ...] = ()


class MultiExit(nn.Module):
    """A classifier with a side at each cut, which runs once per call.

    The final answer is the backbone's own, or with `final` that of the last side.
    """

    def __init__(
        self, backbone: nn.Module, cuts: Sequence[Cut], sides: Sequence[nn.Module], *, last: str, final: bool = False
    ) -> None:
        """`cuts` in the order in which they are met, `sides` likewise; `last` is the module that ends the last block.

        Raises: RefusedError when the backbone has no such module.
        """
        super().__init__()
        if len(cuts) != len(sides):
            raise RefusedError(f"there are {len(cuts)} cuts for {len(sides)} heads; give one head for each cut")
        self.backbone, self.cuts, self.last, self.final = backbone, tuple(cuts), last, final
        self.sides = nn.ModuleList(sides)
        self.frozen = False

    def freeze(self) -> None:
        """Train the sides alone from here on: the backbone's weights and statistics stay as they are."""
        self.frozen = True
        self.backbone.requires_grad_(requires_grad=False)
        self.backbone.eval()

    def train(self, mode: bool = True) -> MultiExit:
        """As for any module, but a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def side(self, number: int) -> Side:
        """The side at the cut of this number."""
        return cast("Side", self.sides[number])

    def forward(self, *inputs: Tensor) -> Seen:
        """Everything that one run of the backbone shows.

        Raises: RefusedError when the backbone gives no logits [b, classes], or did not come by one of the cuts.
        """
        answers: list[Answer] = []
        hidden: list[Tensor] = []

        def met(x: Tensor) -> Tensor:
            state = answers[-1].state if answers else ()
            answers.append(ask(self.side(len(answers)), x, state))
            return answers[-1].x

        def ended(x: Tensor) -> Tensor:
            hidden.append(x)
            return x

        with changed(self.backbone, [*((cut, met) for cut in self.cuts), (Cut(self.last), ended)]):
            own = answer_of(self.backbone(*inputs))
        if len(answers) != len(self.cuts) or len(hidden) != 1:
            raise RefusedError(f"the network came by {len(answers)} of its {len(self.cuts)} cuts; choose other blocks")
        return self._seen(answers, own, hidden[0])

    def _seen(self, answers: Sequence[Answer], own: Tensor, hidden: Tensor) -> Seen:
        exits = {number: each.logits for number, each in enumerate(answers) if each.logits is not None}
        logits = (*exits.values(), *(() if self.final else (own,)))
        return Seen(logits, own, hidden, tuple(answer.features for answer in answers), tuple(exits))


def answer_of(returned: Any) -> Tensor:
    """The one output [b, classes] of a classifier. Raises: RefusedError for anything else."""
    outputs = outputs_of(returned)
    if len(outputs) != 1 or outputs[0].ndim != 2 or outputs[0].shape[1] < 2:
        found = ", ".join(str(list(tensor.shape)) for tensor in outputs)
        raise RefusedError(
            f"early exits need a classifier with one output [n, classes], and this network gives {found}"
        )
    return outputs[0]


@contextmanager
def changed(backbone: nn.Module, changes: Iterable[tuple[Cut, Change]]) -> Generator[None]:
    """While this lasts, what passes each cut goes through its change; several at one cut go in order."""
    handles: list[Any] = []
    try:
        handles.extend(_hooked(backbone, cut, change) for cut, change in changes)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hooked(backbone: nn.Module, cut: Cut, change: Change) -> Any:
    try:
        module = backbone.get_submodule(cut.path)
    except AttributeError as error:
        raise RefusedError(f"the network has no module {cut.path!r} to cut at") from error

    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return with_main((args, kwargs), change)

    def after(module: nn.Module, args: Any, result: Any) -> Any:
        return with_main(result, change)

    if cut.before:
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)


def with_main(values: Any, change: Change) -> Any:
    """`values` with the first tensor of real numbers changed, and whatever stands beside it as it was."""
    leaves, form = tree_flatten(values)
    main = next(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    leaves[main] = change(leaves[main])
    return tree_unflatten(leaves, form)
