"""`penstock models storage|fsck|gc|pin|unpin|pushes`."""

import json
from typing import Any

import click

from penstock.cli.client import at
from penstock.cli.models.progress import progress_of
from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, share, size, table, when
from penstock.core.errors import Damaged, Unavailable
from penstock.core.references import parse_reference

_DAY_S = 86400


@click.command("storage")
@with_session
def storage(session: Session) -> None:
    """How many bytes all versions have, and how many are stored for them."""
    found = session.api.get("/storage")

    def people() -> None:
        part = found["stored"] / found["logical"] if found["logical"] else None
        pairs(
            session.console,
            [
                ("versions", f"{found['versions']}, of {size(found['logical'])} together"),
                ("stored", f"{size(found['stored'])}, {share(part)} of that, in {found['packs']} packs"),
                ("needed", f"{size(found['live'])}; the rest goes with the next sweep, or the one after"),
                ("blocks", f"{found['blocks']}, {found['deltas']} of them deltas"),
                ("waiting", f"{found['waiting']} files to be looked at for deltas" if found["waiting"] else None),
            ],
        )

    session.answer(found, people)


@click.command("fsck")
@click.option(
    "--forget", is_flag=True, help="Forget blocks that are damaged, so that a push of the same files brings them again."
)
@with_session
def fsck(session: Session, forget: bool) -> None:
    """Read everything that is stored and compare it with its names. Damage is told by version, file and tensor; exit status 1 if there is any.

    A version that is damaged is repaired with --forget, and a push of the same files under any free label.
    """
    damages: list[dict[str, Any]] = []
    done: dict[str, Any] | None = None
    with progress_of(session) as progress:
        job = progress.add_task("checking", total=None)
        for line in session.api.lines("/storage/fsck", {"forget": forget}):
            word = json.loads(line)
            if word["type"] == "far":
                progress.update(job, completed=word["checked"], total=word["total"])
            elif word["type"] == "damage":
                damages.append({key: value for key, value in word.items() if key != "type"})
            else:
                done = word
    if done is None:
        raise Unavailable("The control plane broke off before everything was checked.", hint="Do it again.")
    document = {key: value for key, value in done.items() if key != "type"} | {"damages": damages}

    def people() -> None:
        if damages:
            table(
                session.console,
                ("VERSION", "FILE", "TENSORS", "BYTES", "WHAT"),
                [(d["version"], d["file"], d["tensors"], f"{d['start']}-{d['end']}", d["reason"]) for d in damages],
                empty="",
            )
        else:
            click.echo(
                f"{done['versions']} versions are whole: {done['files']} files, {done['blocks']} blocks, {size(done['checked'])}."
            )

    session.answer(document, people)
    if damages:
        raise Damaged(f"{len(damages)} places are damaged.")


@click.command("gc")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=_DAY_S,
    show_default=True,
    metavar="SECONDS",
    help="What somebody relied on since then stays.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would go, and remove nothing.")
@with_session
def gc(session: Session, grace: float, dry_run: bool) -> None:
    """Remove the bytes that no version, revision of an environment, pin, running pull or open push needs.

    Versions that were deleted give theirs up; what any environment may roll back to stays. Control does the same every hour.
    """
    found = session.api.send("POST", "/storage/gc", {"grace_s": grace, "dry_run": dry_run})
    verb = "would go" if dry_run else "went"
    session.answer(
        found,
        lambda: click.echo(
            f"{found['files']} files, {found['blocks']} blocks and {found['packs']} packs {verb}; "
            f"{found['rewritten']} packs were written anew; {size(found['freed'])} were freed."
        ),
    )


@click.command("pin")
@click.argument("reference", metavar="[REF]", required=False)
@click.option("--reason", default="", help="Why, for whoever meets the pin.")
@with_session
def pin(session: Session, reference: str | None, reason: str) -> None:
    """Keep a version's bytes whatever becomes of it; without REF, all that are pinned."""
    if reference is None:
        found = session.api.get("/pins")
    else:
        named = session.api.get("/resolve", ref=str(parse_reference(reference)))
        found = session.api.send("POST", "/pins", {"model": named["model"], "label": named["label"], "reason": reason})
    _show_pins(session, found)


@click.command("unpin")
@click.argument("reference", metavar="REF")
@click.option("--reason", default="", help="Why, for the audit trail.")
@with_session
def unpin(session: Session, reference: str, reason: str) -> None:
    """Keep a version's bytes no longer for a pin's sake."""
    named = session.api.get("/resolve", ref=str(parse_reference(reference)))
    body = {"model": named["model"], "label": named["label"], "reason": reason}
    _show_pins(session, session.api.send("POST", "/pins/remove", body))


def _show_pins(session: Session, found: list[dict[str, Any]]) -> None:
    session.answer(
        {"pins": found},
        lambda: table(
            session.console,
            ("VERSION", "BY", "SINCE", "REASON"),
            [(f"{one['model']}:{one['label']}", one["principal"], when(one["at"]), one["reason"]) for one in found],
            empty="Nothing is pinned.",
        ),
    )


@click.command("pushes")
@click.option("--give-up", metavar="ID", help="End this one: what it brought and nothing else needs is removed.")
@with_session
def pushes(session: Session, give_up: str | None) -> None:
    """The pushes that you have under way: they count towards what you may push at a time."""
    if give_up is not None:
        session.api.send("DELETE", at("uploads", give_up))
        session.answer({"id": give_up, "state": "given up"}, lambda: click.echo(f"{give_up} is given up."))
        return
    found = session.api.get("/uploads")
    session.answer(
        {"pushes": found},
        lambda: table(
            session.console,
            ("ID", "VERSION", "SIZE", "BEGUN", "KEPT UNTIL"),
            [
                (p["id"], f"{p['model']}:{p['label']}", size(p["size"]), when(p["created_at"]), when(p["lease_until"]))
                for p in found
            ],
            empty="You push nothing.",
        ),
    )
