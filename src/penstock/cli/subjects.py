"""`penstock subjects`: whom content was kept of, and how it is forgotten; the keys behind it."""

from pathlib import Path

import click

from penstock.cli.session import Session, with_session
from penstock.cli.show import pairs, when
from penstock.core.errors import BadRequest


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
@with_session
def forget(
    session: Session, tenant: str, user: str | None, named: str | None, everyone: bool, reason: str, yes: bool
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
    session.answer(
        told,
        lambda: click.echo(
            f"{told['keys']} keys of {told['tenant']}/{told['subject']} were destroyed at {when(told['at'])}."
            if told["keys"]
            else f"{told['tenant']}/{told['subject']} has no key: no content of its requests can be read."
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
