"""`penstock models`: the registry's commands, each in a module of this package."""

import click

from penstock.cli.lazy import Entry, LazyGroup


class Models(LazyGroup):
    """The registry's commands, in the order in which people meet them."""

    table: dict[str, Entry] = {  # noqa: RUF012 - a constant
        "list": ("models.listing:list_models", "All models, or the versions of the model NAME."),
        "show": ("models.listing:show", "One version: NAME:LABEL, NAME@ALIAS or NAME@sha256:..."),
        "card": ("models.listing:card", "The model card of a version, as Markdown."),
        "push": ("models.push:push", "Register the files in DIRECTORY as the version NAME:LABEL."),
        "pull": ("models.pull:pull", "Write the files of a version below DIRECTORY."),
    }


@click.group(cls=Models)
def models() -> None:
    """The registry: models, their versions and files."""
