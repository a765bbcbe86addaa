"""The entry point: finds the command, runs it, turns errors into one sentence and an exit status.

Each command's module is imported when it is asked for, so that `penstock --help` answers at once.
"""

import sys
from importlib import import_module

import click

from penstock import __version__
from penstock.core.errors import PenstockError

# command -> (module, one line of help); in the order in which people meet them.
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up", "Run everything on this machine: control, gateways, shipper and engines."),
    "gateway": ("processes", "Run the gateway: the OpenAI API."),
    "control": ("processes", "Run the control plane: API, console and loops."),
    "engine": ("processes", "Run one embedded engine for the model in DIRECTORY."),
    "ship": ("processes", "Run the shipper, which carries the journal to control."),
}
HIDDEN: dict[str, tuple[str, str]] = {
    "supervise": ("processes", "Keep the processes of a data folder running; started by `up`."),
}


class Lazy(click.Group):
    """A group that imports a command when it is called, and lists all of them without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names that `--help` shows."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; its module is imported now."""
        entry = COMMANDS.get(cmd_name) or HIDDEN.get(cmd_name)
        if entry is None:
            return None
        module = import_module(f"penstock.cli.{entry[0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="penstock")
def cli() -> None:
    """Takes a trained language model to production and keeps it there."""


def main() -> None:
    """Runs the command that was typed. Exit status: 0 done, 1 refused or failed with a sentence on stderr, 2 wrong usage."""
    try:
        status = cli.main(prog_name="penstock", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Stopped.", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except PenstockError as error:
        click.echo(f"Error: {error.message}", err=True)
        if error.hint:
            click.echo(f"Hint: {error.hint}", err=True)
        sys.exit(error.exit_code)
    sys.exit(status if isinstance(status, int) else 0)
