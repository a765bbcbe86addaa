"""`/api/v1/engagement`: sessions, how engaged they are, and conversions, by what one asks for."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs_in_tenant
from penstock.control.figures.usage import MINUTES, check_by
from penstock.control.ingest.engagement import COUNTS, EVER
from penstock.core.errors import BadRequest
from penstock.store.schema_engagement import engagement_minute

Viewer = Annotated[Principal, Depends(needs_in_tenant("usage:read"))]
Filter = Annotated[str | None, Query(max_length=256, pattern="^[^\\x00]*$")]
BY = (*MINUTES, "tenant", "route", "version")


async def engagement_rows(
    connection: AsyncConnection, start: float, end: float, filters: dict[str, str | None] | None = None
) -> Iterable[Any]:
    """The rows of the minutes from `start` to `end` (Unix seconds), oldest first."""
    table = engagement_minute
    statement = select(table).where(
        table.c.minute > EVER, table.c.minute >= int(start // 60), table.c.minute <= int(end // 60)
    )
    for name, value in (filters or {}).items():
        if value is not None:
            statement = statement.where(table.c[name] == value)
    return (await connection.execute(statement.order_by(table.c.minute))).mappings().all()


def figures(rows: Iterable[Any]) -> dict[str, Any]:
    """Sums, and what follows from them: None where there is nothing to divide by."""
    sums = dict.fromkeys(COUNTS, 0)
    for row in rows:
        for name in COUNTS:
            sums[name] += row[name]
    sessions = sums["sessions"]
    milliseconds = sums.pop("session_ms")

    def each(count: float) -> float | None:
        return count / sessions if sessions else None

    return sums | {
        "engagement_rate": each(sums["engaged"]),
        "requests_per_session": each(sums["session_requests"]),
        "session_s": each(milliseconds / 1000),
        "conversion_rate": each(sums["conversions"]),
    }


def grouped(rows: Iterable[Any], by: Sequence[str]) -> list[dict[str, Any]]:
    """Figures by the values of `by`, in the order of these."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        key = tuple(row["minute"] // MINUTES[n] * MINUTES[n] * 60 if n in MINUTES else row[n] for n in by)
        groups.setdefault(key, []).append(row)
    names = ["at" if name in MINUTES else name for name in by]
    return [dict(zip(names, key, strict=True)) | figures(groups[key]) for key in sorted(groups)]


def add_engagement(router: APIRouter) -> None:
    """Adds the route."""

    @router.get("/engagement")
    async def engagement(
        control: ControlPart,
        who: Viewer,
        start: Annotated[
            float | None, Query(alias="from", ge=0, le=1e11, description="Unix seconds; left out: a day ago.")
        ] = None,
        end: Annotated[
            float | None, Query(alias="to", ge=0, le=1e11, description="Unix seconds; left out: now.")
        ] = None,
        by: Annotated[str, Query(description="Of minute, hour, day, tenant, route, version; with commas.")] = "",
        tenant: Filter = None,
        route: Filter = None,
        version: Filter = None,
    ) -> dict[str, Any]:
        """Sessions, engagement, conversions, feedback and reports, grouped."""
        names = check_by(by, BY)
        end = control.clock() if end is None else end
        start = end - 86400 if start is None else start
        if not start <= end <= start + 400 * 86400:
            raise BadRequest(f"from {start:g} to {end:g} is no stretch of up to 400 days.", param="from")
        filters = {"tenant": who.held_to(tenant), "route": route, "version": version}
        async with control.database.read() as connection:
            rows = await engagement_rows(connection, start, end, filters)
        return {"from": start, "to": end, "rows": grouped(rows, names)}
