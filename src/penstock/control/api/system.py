"""/api/v1/me, /gateways, /replicas, /audit; /healthz, /readyz, /metrics; and what gateways ask at /internal/v1."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import select

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, check_service, needs, needs_in_tenant
from penstock.control.deploy.publisher import Publisher
from penstock.control.watch.state_events import read_events
from penstock.core.errors import BadRequest
from penstock.core.reports import Report
from penstock.core.snapshot import Snapshot
from penstock.store.schema import audit_events, replicas

router = APIRouter(tags=["system"])
probes = APIRouter(tags=["probes"])
internal = APIRouter(prefix="/internal/v1", dependencies=[Depends(check_service)], include_in_schema=False)
Reader = Annotated[Principal, Depends(needs("deployments:read"))]
_LONGEST_WAIT_S = 60.0
_GATEWAY_FORGOTTEN_S = 60.0


def get_publisher(request: Request) -> Publisher:
    """The app's `Publisher`."""
    publisher: Publisher = request.app.state.publisher
    return publisher


PublisherPart = Annotated[Publisher, Depends(get_publisher)]


@router.get("/me")
async def me(who: Annotated[Principal, Depends(needs_in_tenant())]) -> dict[str, Any]:
    """Who the key is."""
    return {"name": who.name, "key": who.key, "roles": who.roles, "tenant": who.tenant or None}


@router.get("/gateways")
async def gateways(control: ControlPart, publisher: PublisherPart, _who: Reader) -> dict[str, Any]:
    """The gateway workers heard of in the last minute, the generation that they should have, and what they refuse of it."""
    current = publisher.current
    oldest = control.clock() - _GATEWAY_FORGOTTEN_S
    heard = [report for report in publisher.reports.values() if report.at >= oldest]
    return {
        "generation": current.generation if current is not None else 0,
        "gateways": msgspec.to_builtins(sorted(heard, key=lambda r: (r.host, r.worker))),
    }


@router.get("/replicas")
async def list_replicas(control: ControlPart, _who: Reader) -> list[dict[str, Any]]:
    """The replicas that were seen ready, and take requests."""
    async with control.database.read() as connection:
        rows = await connection.execute(select(replicas).order_by(replicas.c.id))
        return [{"id": r.id, "pool": r.pool, "url": r.url, "ready_at": r.ready_at} for r in rows]


@router.get("/audit")
async def audit(
    control: ControlPart,
    who: Annotated[Principal, Depends(needs_in_tenant("audit:read"))],
    subject: str | None = None,
    tenant: Annotated[str | None, Query(max_length=96, description="Events of this tenant alone.")] = None,
    before: int | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    """Every change, newest first; `before` continues from a sequence number. Who belongs to a tenant sees what its keys did, and what was done to it."""
    statement = select(audit_events).order_by(audit_events.c.sequence.desc()).limit(limit)
    tenant = who.held_to(tenant)
    for column, value in ((audit_events.c.subject, subject), (audit_events.c.tenant, tenant)):
        if value is not None:
            statement = statement.where(column == value)
    if before is not None:
        statement = statement.where(audit_events.c.sequence < before)
    async with control.database.read() as connection:
        rows = await connection.execute(statement)
        return [
            {
                "sequence": row.sequence,
                "at": row.at,
                "principal": row.principal,
                "key": row.key,
                "action": row.action,
                "subject": row.subject,
                "tenant": row.tenant,
                "detail": row.detail,
            }
            for row in rows
        ]


@probes.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@internal.get("/snapshot")
async def snapshot(publisher: PublisherPart, after: int = -1, wait: Annotated[float, Query(ge=0)] = 0.0) -> Response:
    """The Snapshot if it is newer than generation `after`, or the delta from there; 204 if nothing came within `wait` seconds."""
    newer = await publisher.newer(after, min(wait, _LONGEST_WAIT_S))
    if newer is None:
        return Response(status_code=204)
    name = "snapshot" if isinstance(newer, Snapshot) else "delta"
    return Response(msgspec.json.encode({name: newer}), media_type="application/json")


@internal.get("/events")
async def events(
    control: ControlPart,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
) -> Response:
    """Changes of state after the sequence `after`, as sinks are told them."""
    return Response(msgspec.json.encode(await read_events(control, after, limit)), media_type="application/json")


@internal.post("/report")
async def report(request: Request, publisher: PublisherPart) -> dict[str, str]:
    """A gateway worker tells which generation it has."""
    try:
        publisher.report(msgspec.json.decode(await request.body(), type=Report, strict=False))
    except msgspec.DecodeError as error:
        raise BadRequest(f"This is no report: {error}.", param="body") from None
    return {"status": "ok"}
