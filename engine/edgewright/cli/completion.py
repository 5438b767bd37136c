"""`engine completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, their choices and file names.

    bash: add  eval "$(engine completion bash)"  to ~/.bashrc; zsh: the same with zsh to ~/.zshrc; fish: engine
    completion fish > ~/.config/fish/completions/engine.fish
    """
    from edgewright.cli import engine

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(engine, {}, "engine", "_ENGINE_COMPLETE").source())
