"""Cards: README.md of a version is the first revision, edits are further ones; a card to begin from is filled with what is known."""

from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.gates.evidence import read_results
from penstock.core.errors import BadRequest, Conflict, NotFound
from penstock.registry.builds import builds_of
from penstock.registry.card import Missing, lacking, parse_card
from penstock.registry.card_template import Filling, results_of, template_card
from penstock.registry.manifest import read_manifest
from penstock.store.schema import versions
from penstock.store.schema_versions import card_revisions, lineage_edges

MAX_CARD_BYTES = 1 << 20


def check_card(text: str) -> None:
    """Raises `BadRequest` if `text` cannot be a card."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_CARD_BYTES:
        raise BadRequest("A card has at most 1 MiB.", param="card")
    if "\x00" in text:
        raise BadRequest("The card holds a NUL.", param="card")
    parse_card(text)


async def first_card(change: Change, model: str, label: str, text: str) -> None:
    """Keep README.md of a version that is being committed as its card's first revision; "": it has none."""
    if text:
        await _insert(change, model, label, 1, text, "README.md of the version.")


async def edit_card(change: Change, version: Any, text: str, *, reason: str = "", revision: int | None = None) -> int:
    """Make `text` the card of `version` (a row); the number of the revision, the newest one's if nothing changed.

    Args:
        change: the change.
        version: the row of the version.
        text: the card.
        reason: for the record.
        revision: the newest as the caller saw it, 0: none; None: whatever it is.

    Raises:
        BadRequest: if it cannot be a card.
        Conflict: if there is a newer revision than the caller saw.
    """
    check_card(text)
    now = await newest_revision(change.connection, version.model, version.label)
    if revision is not None and revision != now:
        raise Conflict(
            f"The card of {version.model}:{version.label} is of revision {now}, not {revision}: somebody edited it meanwhile.",
            code="generation_conflict",
            param="revision",
        )
    mine = (versions.c.model == version.model) & (versions.c.label == version.label)
    before = (await change.connection.execute(select(versions.c.card).where(mine))).scalar_one()
    if before == text and now:
        return now
    await _insert(change, version.model, version.label, now + 1, text, reason)
    await change.connection.execute(update(versions).where(mine).values(card=text))
    await change.audit("card.edit", f"{version.model}:{version.label}", revision=now + 1, reason=reason)
    return now + 1


async def _insert(change: Change, model: str, label: str, number: int, text: str, reason: str) -> None:
    await change.connection.execute(
        insert(card_revisions).values(
            model=model,
            label=label,
            number=number,
            text=text,
            reason=reason,
            principal=change.caller.name,
            at=change.now,
        )
    )


async def newest_revision(connection: AsyncConnection, model: str, label: str) -> int:
    """The number of a card's newest revision; 0: there is none."""
    statement = (
        select(card_revisions.c.number)
        .where(card_revisions.c.model == model, card_revisions.c.label == label)
        .order_by(card_revisions.c.number.desc())
        .limit(1)
    )
    return (await connection.execute(statement)).scalar_one_or_none() or 0


async def read_revisions(connection: AsyncConnection, model: str, label: str) -> list[dict[str, Any]]:
    """A card's revisions without their text, newest first."""
    rows = await connection.execute(
        select(card_revisions)
        .where(card_revisions.c.model == model, card_revisions.c.label == label)
        .order_by(card_revisions.c.number.desc())
    )
    return [
        {"number": r.number, "reason": r.reason, "principal": r.principal, "at": r.at, "characters": len(r.text)}
        for r in rows
    ]


async def card_text(connection: AsyncConnection, version: Any, revision: int | None) -> str:
    """The card of `version`, as it was at `revision`; None: as it is.

    Raises:
        NotFound: if there is none such.
    """
    name = f"{version.model}:{version.label}"
    if revision is None:
        if not version.card:
            raise NotFound(f"{name} has no card.", hint=f"penstock models card {name} --template begins one.")
        return str(version.card)
    statement = select(card_revisions.c.text).where(
        card_revisions.c.model == version.model,
        card_revisions.c.label == version.label,
        card_revisions.c.number == revision,
    )
    text = (await connection.execute(statement)).scalar_one_or_none()
    if text is None:
        raise NotFound(f"The card of {name} has no revision {revision}.")
    return str(text)


def missing_of(version: Any) -> tuple[Missing, ...]:
    """What the card of `version` does not say."""
    return lacking(parse_card(version.card), f"{version.model}:{version.label}")


async def fill_template(connection: AsyncConnection, version: Any) -> str:
    """A card to begin from, for `version`."""
    rows = await connection.execute(
        select(lineage_edges)
        .where(lineage_edges.c.model == version.model, lineage_edges.c.label == version.label)
        .order_by(lineage_edges.c.position)
    )
    edges = rows.all()
    manifest = read_manifest(version.manifest, version.digest)
    found = await read_results(connection, version)
    measured = {one.metric for one in found}
    results = (*found, *(one for one in results_of(version.metadata) if one.metric not in measured))
    engines = [build.engine for build in builds_of(manifest)]
    if any(path.endswith(".safetensors") for path in manifest.files):
        engines.insert(0, "safetensors")
    return template_card(
        Filling(
            model=version.model,
            label=version.label,
            digest=version.digest,
            metadata=version.metadata,
            results=results,
            datasets=[edge.target for edge in edges if edge.relation == "trained_on"],
            bases=[(edge.relation, edge.target) for edge in edges if edge.kind != "dataset"],
            engines=engines,
            size=version.size,
            chats=any(path.endswith("chat_template.jinja") for path in manifest.files)
            or any(path.endswith("tokenizer_config.json") for path in manifest.files),
        )
    )
