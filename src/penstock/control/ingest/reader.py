"""The control plane's reader of the journal: `POST /internal/v1/ingest`.

A batch, its source's offset, the ingest sequence of its records and all that is derived from them are committed in one transaction. A
batch that is sent twice is answered 409 with the position that is committed, and changes nothing: so delivery at least once counts once.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.auth import ControlPart, check_service
from penstock.control.context import Control
from penstock.control.experiments.signal import Signal
from penstock.control.ingest.batch import IngestBatch
from penstock.control.ingest.texts import Late, link_texts
from penstock.core.errors import BadRequest, Damaged
from penstock.core.exchange import Record
from penstock.journal.format import FRAME_HEAD_BYTES, Position, decode_payload, frame_end
from penstock.store.schema import sequences
from penstock.store.schema_experiments import ingest_offsets
from penstock.store.sql import next_value

Forget = Callable[[list[Late]], Awaitable[None]]
MAX_BODY_BYTES = 32 * 1024 * 1024  # more than a frame can have


class OutOfPlace(Exception):
    """A batch does not start where its source's last one ended; `position` is there."""

    def __init__(self, position: Position) -> None:
        super().__init__(f"committed up to {position}")
        self.position = position


def records_of(body: bytes) -> list[tuple[Record, bytes]]:
    """The records of whole frames, each with its payload.

    Raises:
        BadRequest: if a frame is torn or damaged; the message says at which byte.
    """
    found: list[tuple[Record, bytes]] = []
    view = memoryview(body)
    offset = 0
    while offset < len(body):
        end = frame_end(view, offset)
        if end < 0:
            raise BadRequest(f"The frame at byte {offset} is torn or damaged.", code="damaged_frame", param="body")
        payload = body[offset + FRAME_HEAD_BYTES : end]
        try:
            found.append((decode_payload(payload), payload))
        except Damaged as error:
            raise BadRequest(f"At byte {offset}: {error.message}", code="damaged_frame", param="body") from None
        offset = end
    return found


async def ingest(
    control: Control,
    source: str,
    start: Position,
    end: Position,
    body: bytes,
    tripped: set[str] | None = None,
    late: list[Late] | None = None,
) -> set[str]:
    """Take a batch in; the names of the experiments that it changed.

    Those of which a guardrail tripped are added to `tripped`, texts whose authors are forgotten already to `late`.

    Raises:
        OutOfPlace: if it does not start where the last one of `source` ended; nothing is changed.
        BadRequest: if the body is not whole frames.
        Unavailable: if the database cannot be written.
    """
    records = records_of(body)
    now = control.clock()
    async with control.database.write() as connection:
        last = await reserve(connection, len(records))  # also makes writers wait for one another
        committed = await committed_position(connection, source)
        if committed is not None and not _follows(committed, start):
            raise OutOfPlace(committed)
        batch = IngestBatch(records, last - len(records) + 1)
        changed = await batch.run(connection)
        overdue = await link_texts(connection, [record for record, _ in records])
        values = {"segment": end.segment, "offset": end.offset, "at": now}
        if committed is None:
            await connection.execute(insert(ingest_offsets).values(source=source, **values))
        else:
            await connection.execute(update(ingest_offsets).where(ingest_offsets.c.source == source).values(**values))
    if tripped is not None:
        tripped.update(batch.tripped())
    if late is not None:
        late.extend(overdue)
    return changed


def _follows(committed: Position, start: Position) -> bool:
    """Whether a batch at `start` goes on after `committed`: at it, or in a later segment (whose reader has finished the earlier)."""
    return start == committed or start.segment > committed.segment


async def reserve(connection: AsyncConnection, count: int) -> int:
    """The last of `count` new ingest sequence numbers; its row stays locked until the transaction ends."""

    async def bump(by: int) -> int | None:
        statement = (
            update(sequences)
            .where(sequences.c.name == "ingest")
            .values(value=sequences.c.value + by)
            .returning(sequences.c.value)
        )
        after: int | None = (await connection.execute(statement)).scalar_one_or_none()
        return after

    value = await bump(count)
    if value is None:
        first = await next_value(connection, "ingest")  # makes the row, whoever else does so at the same time
        value = await bump(count - 1) or first
    return value


async def committed_position(connection: AsyncConnection, source: str) -> Position | None:
    """How far `source` has been taken in; None: nothing of it."""
    row = (
        await connection.execute(
            select(ingest_offsets.c.segment, ingest_offsets.c.offset).where(ingest_offsets.c.source == source)
        )
    ).one_or_none()
    return None if row is None else Position(row.segment, row.offset)


def ingest_router(signal: Signal, forget: Forget | None = None) -> APIRouter:
    """The routes; `signal` is told which experiments have changed, `forget` of texts whose authors are forgotten already."""
    router = APIRouter(prefix="/internal/v1", dependencies=[Depends(check_service)], include_in_schema=False)

    @router.post("/ingest")
    async def take_in(
        request: Request,
        control: ControlPart,
        source: Annotated[str, Query(min_length=1, max_length=64)],  # the journal's name
        segment: Annotated[int, Query(ge=0)],
        start: Annotated[int, Query(ge=0)],
        end: Annotated[int, Query(ge=0)],
    ) -> Any:
        """A batch of whole journal frames."""
        body = await request.body()
        if len(body) > MAX_BODY_BYTES:
            raise BadRequest(f"The batch has {len(body)} bytes; send at most {MAX_BODY_BYTES}.", param="body")
        if end < start or end - start < len(body):
            raise BadRequest(f"{len(body)} bytes do not fit between {start} and {end}.", param="end")
        try:
            tripped: set[str] = set()
            late: list[Late] = []
            begin, stop = Position(segment, start), Position(segment, end)
            changed = await ingest(control, source, begin, stop, body, tripped, late)
        except OutOfPlace as error:
            return JSONResponse({"segment": error.position.segment, "offset": error.position.offset}, status_code=409)
        signal.changed(changed, tripped)
        if late and forget is not None:
            await forget(late)
        return {"segment": segment, "offset": end}

    @router.post("/ingest/heard")
    async def heard(
        control: ControlPart,
        behind: Annotated[float, Query(ge=0, le=1e9, allow_inf_nan=False)],
        journal: Annotated[list[Annotated[str, Query(min_length=1, max_length=64)]], Query(max_length=4096)] = [],  # noqa: B006 - FastAPI copies it
    ) -> dict[str, str]:
        """A shipper tells that all of these journals had been taken in up to their ends `behind` seconds ago."""
        signal.watch.heard(journal, control.clock() - behind)
        return {"status": "ok"}

    @router.get("/ingest/offsets")
    async def offsets(control: ControlPart) -> dict[str, dict[str, int]]:
        """How far each source has been taken in."""
        async with control.database.read() as connection:
            rows = await connection.execute(select(ingest_offsets))
            return {row.source: {"segment": row.segment, "offset": row.offset} for row in rows}

    return router
