"""Groups of commands whose modules are imported when a command is called: `--help` answers at once."""

from collections.abc import Mapping
from importlib import import_module

import click

Entry = tuple[str, str]  # "module" or "module:attribute" in penstock.cli, and one line of help


class LazyGroup(click.Group):
    """A group over a table of commands; those in `hidden` work but are not listed."""

    table: Mapping[str, Entry] = {}
    hidden_table: Mapping[str, Entry] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names that `--help` shows, in the table's order."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; its module is imported now."""
        entry = self.table.get(cmd_name) or self.hidden_table.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry[0].partition(":")
        command: click.Command = getattr(import_module(f"penstock.cli.{module}"), attribute or cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self.table.items()])
