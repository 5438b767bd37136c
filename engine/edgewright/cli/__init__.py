"""The command line: parse, call, print; no logic. A verb's module is imported when the verb is called."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence

import click

VERBS: Mapping[str, tuple[str, str]] = {
    "deploy": ("edgewright.cli.deploy", "Compress a model for a target, prove what was gained, write a bundle."),
    "run": ("edgewright.cli.run", "Run a bundle on the inputs of an .npz file."),
    "profile": ("edgewright.cli.profile", "Measure a bundle or a model: latency, memory, time per operator."),
    "predict": ("edgewright.cli.predict", "Predict what a model costs on a target that is not at hand."),
    "calibrate": ("edgewright.cli.calibrate", "Fit the predictor to a device, and write a profile that knows it."),
    "compare": ("edgewright.cli.compare", "Measure two bundles or models against each other, interleaved."),
    "report": ("edgewright.cli.report", "Write the report of one or several bundles as a page."),
    "stress": ("edgewright.cli.stress", "Find inputs that slow a bundle with exits, and what a deadline does then."),
    "verify": ("edgewright.cli.verify", "Check a bundle: every digest, and its answer to its own example."),
    "targets": ("edgewright.cli.targets", "List the targets, or one with the source of every figure."),
    "plugins": ("edgewright.cli.plugins", "List the plugins, what they offer, and why any is broken."),
    "plugin": ("edgewright.cli.plugin", "Write the package of a new plugin, or check one against the conformance kit."),
    "device": ("edgewright.cli.device", "Prepare a device: what it lacks is installed from this host."),
    "devices": ("edgewright.cli.devices", "List the devices at hand: model, sensors, and whether they are busy."),
    "doctor": ("edgewright.cli.doctor", "Tell what this machine has, what is missing and how to get it."),
    "completion": ("edgewright.cli.completion", "Print what makes a shell complete this command."),
    "clean": ("edgewright.cli.clean", "Remove the cache."),
}


class Verbs(click.Group):
    """A group that knows its verbs by name and imports none of them for `--help`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order people meet them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module. Raises: UsageError with the nearest verb."""
        if cmd_name in VERBS:
            return importlib.import_module(VERBS[cmd_name][0]).command
        from edgewright.errors import suggest

        raise click.UsageError(f"no command named {cmd_name!r}; {suggest(cmd_name, VERBS)}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list under `engine --help`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(package_name="edgewright", prog_name="engine")
@click.pass_context
def engine(ctx: click.Context) -> None:
    """Edgewright deploys neural networks to edge devices, and proves what was gained."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(argv: Sequence[str] | None = None) -> None:
    """The `engine` command.

    Exit codes: 0 done, 1 a bug or a failing plugin, 2 usage or input, 3 contract not met, 4 device lost,
    130 interrupted.
    """
    from edgewright.cli.interrupt import watch

    watch()
    sys.exit(_call(argv))


def _call(argv: Sequence[str] | None) -> int:
    from edgewright.cli.interrupt import pressed
    from edgewright.errors import EdgewrightError, PluginError

    if sys.version_info < (3, 10):
        click.echo("error: the command line needs Python 3.10 or newer; on a device use edgewright_runtime", err=True)
        return 2
    try:
        result = engine.main(args=argv, prog_name="engine", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted()
    except EdgewrightError as error:
        if pressed():  # what was being ended failed at it
            return _interrupted()
        if isinstance(error, PluginError) and error.__cause__ is not None:
            click.echo("".join(traceback.format_exception(error.__cause__)), err=True)
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    return result if isinstance(result, int) else 0


def _interrupted() -> int:
    click.echo("\ninterrupted; nothing half done was left, and the same command goes on where it stopped", err=True)
    return 130
