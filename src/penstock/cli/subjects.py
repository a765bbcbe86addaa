"""`penstock subjects`: whom content was kept of, and how it is forgotten; the keys behind it."""

import time
from pathlib import Path
from typing import Any

import click

from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, table, when
from penstock.core.errors import BadRequest

_LOOK_S = 0.2


@click.group()
def subjects() -> None:
    """Whom content was kept of, and the keys that it is encrypted under."""


@subjects.command("forget")
@click.option("--tenant", required=True, help="Whose subject it is.")
@click.option("--user", help="As requests named it in `user`.")
@click.option(
    "--session", "named", help="As requests named it in x-penstock-session; of those alone that named no user."
)
@click.option("--everyone", is_flag=True, help="All of the tenant's subjects, those who named nobody too.")
@click.option("--reason", default="", help="For the audit trail; name nobody here.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 3600),
    default=15.0,
    show_default=True,
    help="Seconds to wait until all hosts that share keys have confirmed it.",
)
@with_session
def forget(
    session: Session,
    tenant: str,
    user: str | None,
    named: str | None,
    everyone: bool,
    reason: str,
    yes: bool,
    wait_s: float,
) -> None:
    """Destroy a subject's keys: what its requests and their answers said can be read nowhere any more, in no backup of the journal either.

    Requests that named a user are the user's, whatever session they named. Texts of feedback and reports go with the requests that they are about.
    It cannot be undone. A later request of the same subject gets a new key.
    """
    if bool(user) + bool(named) + everyone != 1:
        raise BadRequest("Name one subject: --user, --session or --everyone.", param="--user")
    if not yes and not session.as_json:
        whose = f"all requests of {tenant}" if everyone else f"the requests of this one subject of {tenant}"
        click.confirm(f"Make what was kept of the content of {whose} unreadable for ever?", abort=True)
    body = {"tenant": tenant, "everyone": everyone, "reason": reason}
    body |= {"user": user} if user else {}
    body |= {"session": named} if named else {}
    told = session.api.send("POST", "/subjects/forget", body)
    told["hosts"] = _confirmed(session, told["hosts"], wait_s)

    def people() -> None:
        whose = f"{told['tenant']}/{told['subject']}"
        click.echo(
            f"{told['keys']} keys of {whose} were destroyed at {when(told['at'])}."
            if told["keys"]
            else f"{whose} has no key: no content of its requests can be read."
        )
        for one in told["hosts"]:
            if one["waiting"]:
                click.echo(
                    f"{one['name']} ({one['id']}) has not confirmed it yet; it was last heard of {when(one['at'])}."
                )

    session.answer(told, people)


def _confirmed(session: Session, hosts: list[dict[str, Any]], wait_s: float) -> list[dict[str, Any]]:
    """The hosts that have keys, once all have confirmed or the time is over."""
    end = time.monotonic() + wait_s
    while any(one["waiting"] for one in hosts) and time.monotonic() < end:
        time.sleep(_LOOK_S)
        hosts = session.api.get("/subjects/hosts")
    return hosts


@subjects.command("hosts")
@click.option(
    "--remove", metavar="ID", help="Wait for this host no longer: it is gone, and the disk with its keys too."
)
@with_session
def hosts(session: Session, remove: str | None) -> None:
    """The hosts that share their keys, and how many forgettings each has not confirmed yet. None where each host has its own keys."""
    if remove is not None:
        session.api.send("DELETE", f"/subjects/hosts/{remove}")
    found = session.api.get("/subjects/hosts")
    session.answer(
        {"hosts": found},
        lambda: table(
            session.console,
            ("HOST", "ID", "NOT CONFIRMED", "LAST HEARD OF"),
            [(one["name"], one["id"], one["waiting"], when(one["at"])) for one in found],
            empty="No host shares its keys.",
        ),
    )


@subjects.command("status")
@with_session
def status(session: Session) -> None:
    """How many keys there are on this machine, and which master key wraps them."""
    from penstock.journal.keyring import keys_folder, master_key, open_keys

    keys = open_keys(session.settings, make=False)
    try:
        census = keys.census()
    finally:
        keys.close()
    document = {
        "folder": str(keys_folder(session.settings)),
        "master": master_key(session.settings, make=False).mark,
        "living": census.living,
        "destroyed": census.destroyed,
    }
    session.answer(
        document,
        lambda: pairs(
            session.console,
            [
                ("keys", f"{census.living} living, {census.destroyed} destroyed"),
                ("folder", document["folder"]),
                ("master key", f"mark {document['master']}"),
            ],
        ),
    )


@subjects.command("rotate")
@click.option(
    "--new-master-file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of the new master key; it is made if it is not there [default: DATA/master.key gets a new one].",
)
@with_session
def rotate(session: Session, path: Path | None) -> None:
    """Wrap the keys on this machine by a new master key.

    Content stays readable, and what runs goes on. What starts from now on needs the new master key.
    """
    from penstock.journal.keyring import rotate_master_key

    old, new, file = rotate_master_key(session.settings, path)
    session.answer(
        {"from": old, "to": new, "file": str(file)},
        lambda: click.echo(
            f"The keys are wrapped by the master key {new} in {file}, and no longer by {old}."
            + ("" if path is None else " Set keys.master_file, or PENSTOCK_KEYS_MASTER, before anything starts again.")
        ),
    )
