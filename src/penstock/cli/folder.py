"""`penstock folder show|moved|copied`: whether a data folder is the one that it was."""

from pathlib import Path

import click
import msgspec

from penstock.cli.flags import data_flag
from penstock.compose.settings import read_settings
from penstock.core.errors import NotFound


@click.group()
def folder() -> None:
    """The data folder: where it stands, and whether it is a copy of another one."""


def _root(data: str | None) -> Path:
    root = Path(read_settings({"data": data}).data).absolute()
    if not root.is_dir():
        raise NotFound(f"There is no data folder at {root}.", param="--data")
    return root


def _tell(told: object, as_json: bool, words: str) -> None:
    click.echo(msgspec.json.encode(told).decode() if as_json else words)


@folder.command()
@data_flag
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(data: str | None, as_json: bool) -> None:
    """Where the folder was last used: its id, machine, path and inode."""
    from penstock.supervisor.place import read_place

    root = _root(data)
    place = read_place(root)
    if place is None:
        raise NotFound(f"Nothing has run in {root} yet.", param="--data")
    _tell(place, as_json, f"{place.id} on the machine {place.machine or '(without an id)'} at {place.path}")


@folder.command()
@data_flag
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def moved(data: str | None, as_json: bool) -> None:
    """It is the folder that it was, moved or restored here, and the other one is gone."""
    from penstock.supervisor.place import declare_moved

    place = declare_moved(_root(data))
    _tell(place, as_json, f"{place.path} goes on as what it was.")


@folder.command()
@data_flag
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def copied(data: str | None, as_json: bool) -> None:
    """It is a copy of one that goes on: give it ids of its own. Nothing may run in it meanwhile.

    Records that came along are put aside: they are the original's to pass on.
    """
    from penstock.supervisor.folder import DataFolder
    from penstock.supervisor.place import declare_copied

    root = _root(data)
    known = DataFolder(root)
    with known.lock(known.lock_file):
        place, aside = declare_copied(root)
    told = {**msgspec.to_builtins(place), "aside": str(aside) if aside is not None else None}
    words = f"{place.path} is a folder of its own now"
    _tell(told, as_json, f"{words}; the original's records are in {aside}." if aside is not None else f"{words}.")
