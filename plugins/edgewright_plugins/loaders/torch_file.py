"""Loads a torch module that the user's Python builds: `file.py:callable`."""

from __future__ import annotations

import importlib.util

from edgewright.asking.userfile import code_digest, load_user, split_reference
from edgewright.errors import ModelError
from edgewright.protocols import LoadRequest
from edgewright.types import Model


class TorchFile:
    """The loader of `file.py:callable`.

    Example inputs are the task's first ones, else what a callable `example_inputs` in the same file gives:
    a tensor, a tuple of tensors, or a dict of them by argument name. `--shape` sets the shape of an input
    (and fills it with seeded noise), `--batch` its rows; both are fixed from then on.
    """

    name = "torch-file"

    def accepts(self, source: str) -> bool:
        """Whether `source` reads `something.py:name`."""
        return split_reference(source) is not None

    def load(self, source: str, request: LoadRequest) -> Model:
        """The module in evaluation mode, with the signature that one run on the example inputs shows.

        Raises: ModelError when torch, the file, the callable or the example inputs are missing or unfit.
        """
        reference = split_reference(source)
        if reference is None:
            raise ModelError(f"{source!r} is not of the form file.py:callable")
        need_torch(source)
        from edgewright_plugins.loaders.torch_examples import choose_examples, given_examples
        from edgewright_plugins.loaders.torch_module import argument_names, read_module, torch_model

        user = load_user(reference, kind="model", error=ModelError)
        net = read_module(user, reference)
        names = argument_names(net)
        example = choose_examples(source, names, given_examples(user, reference, names), request)
        stem = reference.path.stem
        return torch_model(
            net,
            example,
            name=stem if reference.name == "model" else f"{stem}-{reference.name}",
            source=source,
            code=f"{code_digest(reference.path)} {reference.name}",
        )


def need_torch(source: str) -> None:
    """Raises: ModelError with the command that installs torch, when it is not there."""
    if importlib.util.find_spec("torch") is None:
        raise ModelError(f"{source} needs PyTorch, which is not installed: pip install 'edgewright[torch]'")


TORCH_FILE = TorchFile()
