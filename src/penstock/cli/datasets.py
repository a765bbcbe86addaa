"""`penstock datasets list|show|register|remove|digest`: records of data, by digest, with their chain of custody."""

import hashlib
from pathlib import Path
from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.documents import file_argument, read_spec
from penstock.cli.resource import remove
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, size, table, when
from penstock.core.errors import BadRequest
from penstock.registry.manifest import make_manifest, manifest_digest

_there = click.Path(exists=True, path_type=Path)


@click.group()
def datasets() -> None:
    """Data that versions were trained and measured on: source, licence, consent, custodians, transformations."""


@datasets.command("list")
@with_session
def list_datasets(session: Session) -> None:
    """All data sets."""
    found = session.api.get("/datasets")
    session.answer(
        {"datasets": found},
        lambda: table(
            session.console,
            ("NAME", "REVISION", "DIGEST", "LICENCE", "CONSENT", "ROWS", "REGISTERED"),
            [
                (
                    one["name"],
                    one["number"],
                    one["digest"],
                    one["spec"]["licence"],
                    (one["spec"]["consent"] or {}).get("basis"),
                    one["spec"]["rows"],
                    when(one["updated_at"]),
                )
                for one in found
            ],
            empty="There is no data set yet; 'penstock datasets register NAME -f FILE' registers one.",
        ),
    )


@datasets.command("show")
@click.argument("name", metavar="NAME|DIGEST")
@with_session
def show(session: Session, name: str) -> None:
    """One data set: its record, the chain of custody with what is missing of it, and the versions that used it."""
    found = session.api.get(at("datasets", name))
    session.answer(found, lambda: _show(session, found))


def _show(session: Session, found: dict[str, Any]) -> None:
    spec, console = found["spec"], session.console
    pairs(
        console,
        [
            ("data set", f"{found['name']}, revision {found['number']}"),
            ("description", spec["description"]),
            ("source", spec["source"]),
            ("location", spec["location"]),
            ("licence", spec["licence"]),
            ("consent", spec["consent"]),
            ("rows", spec["rows"]),
            ("size", size(spec["size"]) if spec["size"] is not None else None),
            ("used by", found["versions"]),
        ],
    )
    console.print(f"[bold]digest[/]   {found['digest']}")
    console.print()
    custody(session, found["custody"])


def custody(session: Session, chain: dict[str, Any]) -> None:
    """Prints a chain of custody: origins first, what was done, by whom, and what nobody has told."""
    rows = []
    for link in chain["links"]:
        held = ", ".join(_held(one) for one in link["custodians"])
        rows.append(
            (
                link["name"],
                link["digest"],
                link["source"],
                held,
                f"{link['registered_by']} {when(link['registered_at'])}",
            )
        )
        for made in link["transformations"]:
            who = " ".join(part for part in (made["by"], made["at"]) if part)
            rows.append(("", "", f"made: {made['what']}", who, made["code"]))
    table(
        session.console,
        ("CUSTODY", "DIGEST", "SOURCE", "CUSTODIANS", "REGISTERED"),
        rows,
        empty="Nothing is registered.",
    )
    for gap in chain["gaps"]:
        session.console.print(f"gap: {gap}", markup=False)


def _held(one: dict[str, Any]) -> str:
    span = f" {one['since'] or '?'} to {one['until'] or 'now'}" if one["since"] or one["until"] else ""
    return f"{one['name']}{span}"


@datasets.command("register")
@click.argument("name", metavar="NAME")
@click.option(
    "-f",
    "--file",
    "path",
    type=file_argument,
    required=True,
    help="YAML: the record, or a DataSet document; - is stdin.",
)
@click.option(
    "--of",
    "of",
    type=_there,
    metavar="PATH",
    help="The data itself, file or folder: its digest and size go into the record.",
)
@with_session
def register(session: Session, name: str, path: str, of: Path | None) -> None:
    """Register a data set, or a new revision of its record; former ones stay. The data itself is not sent anywhere."""
    spec = read_spec(path, "DataSet")
    if of is not None:
        digest, count = digest_of(of)
        if spec.get("digest") not in {None, digest}:
            raise BadRequest(f"{path} names another digest than {of} has: {digest}.", param="digest")
        spec = spec | {"digest": digest, "size": count}
    told = session.api.send("PUT", at("datasets", name), {"kind": "DataSet", "name": name, "spec": spec})
    session.answer(told, lambda: click.echo(f"{name} is registered as {told['digest']}, revision {told['number']}."))


@datasets.command("remove")
@click.argument("name", metavar="NAME")
@with_session
def remove_dataset(session: Session, name: str) -> None:
    """Take the name away, unless a version used the data; its revisions stay."""
    remove(session, "DataSet", "datasets", name)


@datasets.command("digest")
@click.argument("path", type=_there)
@with_session
def digest(session: Session, path: Path) -> None:
    """The digest of data on this machine: of a file its SHA-256, of a folder that of its manifest."""
    found, count = digest_of(path)
    session.answer({"path": str(path), "digest": found, "size": count}, lambda: click.echo(found))


def digest_of(path: Path) -> tuple[str, int]:
    """Digest and size in bytes of a file or a folder; hidden files of a folder are left out.

    Raises:
        BadRequest: if a folder holds no file, or a name that no manifest takes.
    """
    if path.is_file():
        return _file(path)
    found = {
        file.relative_to(path).as_posix(): _file(file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    }
    manifest = make_manifest(found)
    return manifest_digest(manifest), manifest.size


def _file(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}", path.stat().st_size
