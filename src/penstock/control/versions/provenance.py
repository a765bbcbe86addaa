"""Behind one request: the weights by digest, the build, the revision that brought them there, gates, approval, and the data with its custody."""

from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.gates.evidence import read_approvals, read_judgement
from penstock.control.versions.datasets import read_custody
from penstock.control.versions.lineage import edge_of
from penstock.core.errors import NotFound
from penstock.core.exchange import Exchange
from penstock.delivery.pools import BuildKey
from penstock.store.schema import builds, revisions, versions
from penstock.store.schema_experiments import exchanges
from penstock.store.schema_versions import lineage_edges

_MOST_EDGES = 200


async def read_provenance(connection: AsyncConnection, request: str, tenant: str | None) -> dict[str, Any]:
    """What stands behind the answer to `request`; a caller of a `tenant` sees its own requests alone.

    Raises:
        NotFound: if the request is not in the index, or not the caller's to see.
    """
    statement = select(exchanges.c.tenant, exchanges.c.record).where(exchanges.c.id == request)
    row = (await connection.execute(statement)).one_or_none()
    if row is None or (tenant and row.tenant != tenant):
        raise NotFound(f"There is no request {request!r} in the index.", param="id")
    exchange = msgspec.msgpack.decode(row.record, type=Exchange)
    version = await _version(connection, exchange)
    told = {"request": request, "at": exchange.at}
    if version is None:
        nothing: dict[str, Any] = {"version": None, "build": None, "deployments": [], "data": [], "lineage": []}
        return told | {"digest": exchange.digest or None} | nothing
    return told | await provenance_of(connection, version, exchange.pool, exchange.at)


async def provenance_of(connection: AsyncConnection, version: Any, pool: str, at: float) -> dict[str, Any]:
    """What stood behind `version` (a row) at the time `at`, in Unix seconds, as the pool `pool` ran it."""
    edges = await _edges(connection, version)
    return {
        "digest": version.digest,
        "version": {
            "model": version.model,
            "label": version.label,
            "digest": version.digest,
            "state": version.state,
            "created_at": version.created_at,
            "created_by": version.created_by,
            "metadata": version.metadata,
        },
        "build": await _build(connection, version, pool),
        "deployments": await _deployments(connection, version, at),
        "lineage": [
            {
                "version": edge.source,
                "relation": edge.relation,
                "kind": edge.kind,
                "target": edge.target,
                "digest": edge.target_digest or None,
            }
            for edge in edges
        ],
        "data": await _data(connection, edges),
    }


async def _version(connection: AsyncConnection, exchange: Exchange) -> Any:
    model, _, label = exchange.version.partition(":")
    mine = select(versions).where(versions.c.model == model)
    if exchange.digest:
        mine = mine.where(versions.c.digest == exchange.digest)
    rows = (await connection.execute(mine.order_by(versions.c.number))).all()
    return next((row for row in rows if row.label == label), rows[0] if rows and exchange.digest else None)


async def _build(connection: AsyncConnection, version: Any, pool: str) -> dict[str, Any] | None:
    """The build whose pool answered; a version with one build leaves no choice, whatever the pool is called."""
    mine = (builds.c.model == version.model) & (builds.c.label == version.label)
    rows = (await connection.execute(select(builds).where(mine))).all()
    for row in rows:
        key = BuildKey(model=row.model, label=row.label, precision=row.precision)
        if key.pool == pool or len(rows) == 1:
            return {"precision": row.precision, "engine": row.engine, "folder": row.folder, "digest": row.digest}
    return None


async def _deployments(connection: AsyncConnection, version: Any, at: float) -> list[dict[str, Any]]:
    """In each environment, the revision by which the version was there at that time: who promoted it, what the gates said, who approved."""
    rows = await connection.execute(
        select(revisions)
        .where(
            revisions.c.model == version.model,
            revisions.c.digest == version.digest,
            revisions.c.created_at <= at,
            (revisions.c.live_at <= at) | (revisions.c.action == "canary"),
        )
        .order_by(revisions.c.created_at.desc())
    )
    newest: dict[str, Any] = {}
    for row in rows:
        newest.setdefault(row.environment, row)
    found = []
    for row in newest.values():
        origin = await _origin(connection, row)
        found.append(
            {
                "environment": row.environment,
                "revision": row.number,
                "id": row.id,
                "action": row.action,
                "principal": row.principal,
                "reason": row.reason,
                "created_at": row.created_at,
                "live_at": row.live_at,
                "copies": origin.number if origin.id != row.id else None,
                "gates": await read_judgement(connection, origin.id),
                "approvals": await read_approvals(connection, row.environment, row.digest, origin.created_at),
            }
        )
    return found


async def _origin(connection: AsyncConnection, row: Any) -> Any:
    """The revision whose state `row` copies in the end: that one passed the gates, roll-backs pass none."""
    while row.source is not None:
        earlier = (await connection.execute(select(revisions).where(revisions.c.id == row.source))).one_or_none()
        if earlier is None:
            break
        row = earlier
    return row


async def _edges(connection: AsyncConnection, version: Any) -> list[Any]:
    """What the version was made of and measured on, and likewise what it was made of, up to the origins."""
    found: list[Any] = []
    seen: set[tuple[str, str]] = set()
    layer = [(version.model, version.label)]
    while layer and len(found) < _MOST_EDGES:
        model, label = layer.pop(0)
        if (model, label) in seen:
            continue
        seen.add((model, label))
        rows = await connection.execute(
            select(lineage_edges, versions.c.digest.label("source_digest"))
            .join_from(
                lineage_edges,
                versions,
                (lineage_edges.c.model == versions.c.model) & (lineage_edges.c.label == versions.c.label),
            )
            .where(lineage_edges.c.model == model, lineage_edges.c.label == label)
            .order_by(lineage_edges.c.position)
        )
        for row in rows:
            found.append(edge_of(row))
            if row.kind == "version" and row.relation != "evaluated_on":
                name, _, other = row.target.partition(":")
                layer.append((name, other))
    return found


async def _data(connection: AsyncConnection, edges: list[Any]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for edge in edges:
        if edge.kind != "dataset":
            continue
        if edge.target_digest not in found:
            custody = await read_custody(connection, edge.target_digest)
            found[edge.target_digest] = {
                "name": edge.target,
                "digest": edge.target_digest,
                "relations": [],
                "custody": msgspec.to_builtins(custody),
            }
        found[edge.target_digest]["relations"].append({"version": edge.source, "relation": edge.relation})
    return list(found.values())
