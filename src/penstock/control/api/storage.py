"""/api/v1/storage: how much is stored, whether it is whole, and what nothing needs any more; /api/v1/pins."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse
from pydantic import Field
from sqlalchemy import delete, func, insert, select

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, check_permission, needs
from penstock.control.specs.resources import Name, Spec
from penstock.control.storage.fsck import fsck
from penstock.control.storage.storekeeper import GRACE_S
from penstock.control.storage.sweep import sweep
from penstock.control.storage.thin import waiting_to_thin
from penstock.control.versions.find import find_version, reference_in
from penstock.core.errors import NotFound
from penstock.store.schema import versions
from penstock.store.schema_storage import packs, pins, stored_blocks

router = APIRouter(tags=["storage"])
Reader = Annotated[Principal, Depends(needs("models:read"))]
Writer = Annotated[Principal, Depends(needs("models:write"))]


class SweepBody(Spec):
    """The body of POST /storage/gc."""

    grace_s: float = Field(
        default=GRACE_S, ge=0, description="Seconds that something stays after somebody relied on it."
    )
    dry_run: bool = False


class CheckBody(Spec):
    """The body of POST /storage/fsck."""

    forget: bool = Field(
        default=False, description="Damaged blocks, so that a push of the same files brings them again."
    )


class PinBody(Spec):
    """The body of POST /pins."""

    model: Name
    label: str = Field(description="A label, or a digest.")
    reason: str = Field(default="", max_length=4096)


@router.get("/storage")
async def storage(control: ControlPart, _who: Reader) -> dict[str, Any]:
    """Bytes of all versions (`logical`), of the objects that hold them (`stored`), of what lies in these and is needed (`live`)."""
    async with control.database.read() as connection:
        kept = versions.c.state != "deleted"
        logical = select(func.coalesce(func.sum(versions.c.size), 0), func.count()).where(kept)
        total, count = (await connection.execute(logical)).one()
        held = select(func.coalesce(func.sum(packs.c.size), 0), func.count())
        stored, objects = (await connection.execute(held)).one()
        lying = select(
            func.count(), func.coalesce(func.sum(stored_blocks.c.length), 0), func.count(stored_blocks.c.base)
        )
        blocks, live, deltas = (await connection.execute(lying)).one()
    whole = sum([entry.size async for entry in control.blobs.whole.list()])
    return {
        "versions": count,
        "logical": int(total),
        "stored": int(stored) + whole,
        "live": int(live) + whole,
        "packs": objects,
        "blocks": blocks,
        "deltas": deltas,
        "waiting": await waiting_to_thin(control),
    }


@router.post("/storage/gc")
async def gc(body: SweepBody, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Remove what no version, revision, pin, pull or open push needs. `freed` are bytes of objects."""
    found = await sweep(control, grace_s=body.grace_s, dry_run=body.dry_run)
    if not body.dry_run:
        await control.note(who, "storage.gc", "storage", **msgspec.structs.asdict(found))
    return msgspec.structs.asdict(found)


@router.post("/storage/fsck", response_class=StreamingResponse)
async def check(body: CheckBody, control: ControlPart, who: Reader) -> StreamingResponse:
    """Read everything and compare it with its names, as `control.checks_at_once` allows. The answer is a JSON object a line: `far`, `damage`, at last `done`."""
    if body.forget:
        check_permission(who, "models:write")
    place = control.bounds.begin_check(who.name)
    if body.forget:
        await control.note(who, "storage.forget", "storage")

    async def lines() -> AsyncIterator[bytes]:
        try:
            async for word in fsck(control, forget=body.forget):
                control.bounds.heard(place)
                yield msgspec.json.encode(word) + b"\n"
        finally:
            control.bounds.end_check(place)

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@router.get("/pins")
async def list_pins(control: ControlPart, _who: Reader) -> list[dict[str, Any]]:
    """Versions whose bytes are kept whatever becomes of them."""
    async with control.database.read() as connection:
        return [dict(row) for row in (await connection.execute(select(pins).order_by(pins.c.at.desc()))).mappings()]


@router.post("/pins", status_code=201)
async def pin(body: PinBody, control: ControlPart, who: Writer) -> list[dict[str, Any]]:
    """Keep a version's bytes whatever becomes of it."""
    async with control.deed(who) as change:
        version = await find_version(change.connection, reference_in(body.model, body.label))
        mine = (pins.c.model == version.model) & (pins.c.label == version.label)
        await change.connection.execute(delete(pins).where(mine))
        await change.connection.execute(
            insert(pins).values(
                model=version.model, label=version.label, reason=body.reason, principal=who.name, at=change.now
            )
        )
        await change.audit("version.pin", f"{version.model}:{version.label}", reason=body.reason)
    return await list_pins(control, who)


@router.post("/pins/remove")
async def unpin(body: PinBody, control: ControlPart, who: Writer) -> list[dict[str, Any]]:
    """Keep it no longer for the pin's sake."""
    async with control.deed(who) as change:
        version = await find_version(change.connection, reference_in(body.model, body.label))
        mine = (pins.c.model == version.model) & (pins.c.label == version.label)
        if not (await change.connection.execute(delete(pins).where(mine))).rowcount:
            raise NotFound(f"{version.model}:{version.label} is not pinned.")
        await change.audit("version.unpin", f"{version.model}:{version.label}", reason=body.reason)
    return await list_pins(control, who)
