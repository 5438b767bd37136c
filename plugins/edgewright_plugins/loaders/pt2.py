"""Loads a program that torch.export has saved: `*.pt2`."""

from __future__ import annotations

from pathlib import Path

from edgewright.protocols import LoadRequest
from edgewright.types import Model
from edgewright_plugins.loaders.torch_file import need_torch


class Pt2:
    """The loader of `*.pt2`.

    `torch.export.load` unpickles, calls whatever function of torch's the file names and evaluates size
    expressions as Python, so a file is read by `pt2_screen` first: it may hold plain tensors, calls of
    operators and arithmetic on sizes, and nothing else.
    """

    name = "pt2"

    def accepts(self, source: str) -> bool:
        """Whether `source` ends in `.pt2`."""
        return source.endswith(".pt2")

    def load(self, source: str, request: LoadRequest) -> Model:
        """The program's module, run on the inputs it was exported with, the task's, or noise of their shapes.

        Raises: ModelError when torch or the file is missing, or the file is damaged, unsafe or too new.
        """
        need_torch(source)
        from edgewright_plugins.loaders.pt2_program import read_program
        from edgewright_plugins.loaders.torch_examples import choose_examples
        from edgewright_plugins.loaders.torch_module import torch_model

        program = read_program(Path(source))
        example = choose_examples(source, program.names, program.examples, request)
        program.check_sizes(source, example)
        return torch_model(program.module, example, name=Path(source).stem, source=source, code=program.digest)


PT2 = Pt2()
