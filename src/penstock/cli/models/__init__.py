"""`penstock models`: the registry's commands, each in a module of this package."""

import click

from penstock.cli.lazy import Entry, LazyGroup


class Models(LazyGroup):
    """The registry's commands, in the order in which people meet them."""

    table: dict[str, Entry] = {  # noqa: RUF012 - a constant
        "list": ("models.listing:list_models", "All models, or the versions of the model NAME."),
        "show": ("models.listing:show", "One version: NAME:LABEL, NAME@ALIAS or NAME@sha256:..."),
        "next": ("models.naming:following", "The label that would come next."),
        "card": ("models.card:card", "The model card of a version: shown, checked, begun, edited."),
        "diff": ("models.compare:diff", "What differs between two versions, and the bump that is called for."),
        "lineage": ("models.compare:lineage", "What a version was made of, and what was made of it."),
        "alias": ("models.naming:alias", "Names of versions that move."),
        "archive": ("models.naming:archive", "Keep a version from being deployed."),
        "restore": ("models.naming:restore", "Take back a version that was archived."),
        "delete": ("models.naming:delete", "Give a version's bytes up; its label is never used again."),
        "push": ("models.push:push", "Register the files in DIRECTORY as the version NAME:LABEL."),
        "pushes": ("models.storage:pushes", "The pushes that you have under way."),
        "pull": ("models.pull:pull", "Write the files of a version below DIRECTORY."),
        "export": ("models.archive:export", "Write a version as one file, for sites without a network."),
        "import": (
            "models.importing:import_version",
            "Register a model of the hub, of a folder, or of an exported file.",
        ),
        "build": ("models.building:build", "Turn a version's weights into what an engine loads."),
        "builds": ("models.building:list_builds", "What was built, and what each build costs and gains."),
        "evaluate": ("models.evaluate:evaluate", "Have a version answer a suite."),
        "sign": ("models.evaluate:sign", "Have a signer vouch for a version."),
        "verify": ("models.evaluate:verify", "Who vouches for a version: every signature is checked."),
        "storage": ("models.storage:storage", "How many bytes all versions have, and how many are stored."),
        "fsck": ("models.storage:fsck", "Read everything that is stored and compare it with its names."),
        "gc": ("models.storage:gc", "Remove the bytes that nothing needs."),
        "pin": ("models.storage:pin", "Keep a version's bytes whatever becomes of it."),
        "unpin": ("models.storage:unpin", "Keep them no longer for a pin's sake."),
    }


@click.group(cls=Models)
def models() -> None:
    """The registry: models, their versions and files."""
