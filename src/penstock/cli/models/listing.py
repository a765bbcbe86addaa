"""`penstock models list|show`."""

from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, size, table, when
from penstock.core.references import parse_reference


@click.command("list")
@click.argument("name", required=False)
@with_session
def list_models(session: Session, name: str | None) -> None:
    """All models, or the versions of the model NAME."""
    if name is not None:
        _list_versions(session, name)
        return
    found = session.api.get("/models")
    running = _deployed(session) if found else {}
    session.answer(
        {"models": found},
        lambda: table(
            session.console,
            ("NAME", "VERSIONS", "LATEST", "DEPLOYED"),
            [(m["name"], m["versions"], m["latest"], running.get(m["name"], [])) for m in found],
            empty="There is no model yet; 'penstock models push DIR NAME:LABEL' registers one.",
        ),
    )


def _deployed(session: Session) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in session.api.get("/deployments"):
        found.setdefault(one["model"], []).append(f"{one['environment']}: {one['label']}")
    return found


def _list_versions(session: Session, name: str) -> None:
    found = session.api.get(at("models", name, "versions"))
    session.answer(
        {"versions": found},
        lambda: table(
            session.console,
            ("VERSION", "STATE", "SIZE", "DIGEST", "CREATED", "BY"),
            [
                (
                    f"{v['model']}:{v['label']}",
                    v["state"],
                    size(v["size"]),
                    v["digest"],
                    when(v["created_at"]),
                    v["created_by"],
                )
                for v in found
            ],
            empty=f"{name} has no version.",
        ),
    )


@click.command("show")
@click.argument("reference", metavar="REF")
@with_session
def show(session: Session, reference: str) -> None:
    """One version: NAME:LABEL, NAME@ALIAS or NAME@sha256:..."""
    parse_reference(reference)
    found = session.api.get("/resolve", ref=reference)

    def people() -> None:
        console = session.console
        pairs(
            console,
            [
                ("version", f"{found['model']}:{found['label']}"),
                ("aliases", [f"@{name}" for name in found["aliases"]]),
                ("state", found["state"]),
                ("size", size(found["size"])),
                ("created", f"{when(found['created_at'])} by {found['created_by']}"),
                ("metadata", found["metadata"]),
                ("card misses", found["card_missing"]),
                ("signed by", found["signed_by"]),
                ("code", _code(found)),
                ("pickles", found["pickles"]),
            ],
        )
        console.print(f"[bold]digest[/]   {found['digest']}")
        console.print()
        table(
            console,
            ("BUILD", "ENGINE", "FROM", "SIZE", "DIGEST"),
            [
                (
                    b["precision"],
                    b["engine"],
                    "made of its weights" if b["made"] else b["folder"],
                    size(b["size"]),
                    b["digest"],
                )
                for b in found["builds"]
            ],
            empty="No folder of it can be loaded by an engine; 'penstock models build' makes one of its weights.",
        )
        console.print()
        table(
            console,
            ("FILE", "ROLE", "SIZE", "DIGEST"),
            [(f["path"], f["role"], size(f["size"]), f["digest"]) for f in found["files"]],
            empty="It has no file.",
        )

    session.answer(found, people)


def _code(found: dict[str, Any]) -> str:
    if found["code"] is None:
        return ""
    how = "runs sealed" if found["signed_by"] else "is not run before the version is signed"
    return f"{found['code']} {how}"
