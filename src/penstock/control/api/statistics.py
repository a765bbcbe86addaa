"""`/api/v1/usage`, `/overview`, `/live` and `/requests`: what went through, from the records of the journal."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import select

from penstock.access.principals import Principal
from penstock.control.api.engagement import add_engagement, engagement_rows, figures
from penstock.control.api.engine_told import engine_told, tries_told
from penstock.control.auth import ControlPart, needs_in_tenant
from penstock.control.context import Control
from penstock.control.figures.explorer import Explorer, Wanted
from penstock.control.figures.usage import Figures, as_traffic, check_by, grouped, usage_rows
from penstock.core.errors import BadRequest, NotFound
from penstock.core.exchange import Content, Exchange, Observation, Phases, Quality
from penstock.journal.spans import trace_of
from penstock.store.schema_experiments import exchanges, observations

Viewer = Annotated[Principal, Depends(needs_in_tenant("usage:read"))]
Filter = Annotated[str | None, Query(max_length=256, pattern="^[^\\x00]*$")]  # PostgreSQL takes no NUL
LIVE_S = 1.0


def overview(rows: Any, now: float, window_s: float, buckets: int) -> dict[str, Any]:
    """Totals of a window that ends now, and a series over it in whole minutes at least."""
    total = Figures()
    width = max(60.0, window_s / buckets // 60 * 60)
    series: dict[float, Figures] = {}
    for row in rows:
        total.add(row)
        series.setdefault(row["minute"] * 60 // width * width, Figures()).add(row)
    told = total.told()
    requests = told["requests"]
    first = (now - window_s) // width * width
    places = [first + index * width for index in range(int((now - first) // width) + 1)]
    return {
        "at": now,
        "window_s": window_s,
        "requests": requests,
        "errors": told["errors"],
        "refused": told["refused"],
        "cancelled": told["cancelled"],
        "cached": told["cached"],
        "error_rate": told["errors"] / requests if requests else 0.0,
        "requests_per_minute": requests / (window_s / 60),
        "latency_s": told["latency_s"],
        "first_token_s": told["first_token_s"],
        "tokens": {
            "prompt": told["prompt_tokens"],
            "completion": told["completion_tokens"],
            "cached": told["cached_tokens"],
        },
        "cost_usd": told["cost_usd"],
        "series": [_point(place, series.get(place)) for place in places],
    }


def _point(at: float, figures: Figures | None) -> dict[str, Any]:
    told = (figures or Figures()).told()
    return {
        "at": at,
        "requests": told["requests"],
        "errors": told["errors"],
        "latency_p50_s": told["latency_s"]["p50"],
        "latency_p95_s": told["latency_s"]["p95"],
        "latency_p99_s": told["latency_s"]["p99"],
        "first_token_p50_s": told["first_token_s"]["p50"],
        "first_token_p95_s": told["first_token_s"]["p95"],
        "tokens": told["prompt_tokens"] + told["completion_tokens"],
        "cost_usd": told["cost_usd"],
    }


async def read_overview(control: Control, who: Principal, window_s: float = 900.0, buckets: int = 60) -> dict[str, Any]:
    """The overview as `who` may see it."""
    now = control.clock()
    async with control.database.read() as connection:
        mine = {"tenant": who.held_to()}
        rows = as_traffic(await usage_rows(connection, now - window_s, now, mine))
        engaged = await engagement_rows(connection, now - window_s, now, mine)
    return overview(rows, now, window_s, buckets) | {"engagement": figures(engaged)}


async def live(control: Control, who: Principal, window_s: float) -> AsyncGenerator[bytes, None]:
    """Server-sent events: the overview, each second, until the reader leaves."""
    while True:
        told = await read_overview(control, who, window_s)
        yield b"event: overview\ndata: " + json.dumps(told, allow_nan=False).encode() + b"\n\n"
        await asyncio.sleep(LIVE_S)


def phases_told(phases: Phases) -> list[dict[str, Any]]:
    """The phases that were reached, each with its end and its own length in milliseconds."""
    found: list[dict[str, Any]] = []
    before = 0
    for name in ("decoded", "admitted", "dispatched", "first_token", "last_token", "done"):
        end: int = getattr(phases, name)
        if end > 0:
            found.append({"name": name, "end_ms": end / 1e6, "ms": max(0, end - before) / 1e6})
            before = max(before, end)
    return found


def quality_told(quality: Quality) -> dict[str, Any]:
    """What the engine saw of an answer, and what follows from it."""
    told = {name: getattr(quality, name) for name in quality.__struct_fields__}
    return told | {"perplexity": quality.perplexity, "repetition": quality.repetition}


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def statistics_router(explorer: Explorer) -> APIRouter:
    """The routes, to stand below /api/v1."""
    router = APIRouter(tags=["usage"])
    _add_usage(router)
    add_engagement(router)
    _add_requests(router, explorer)
    return router


def _add_usage(router: APIRouter) -> None:
    @router.get("/usage")
    async def usage(
        control: ControlPart,
        who: Viewer,
        start: Annotated[
            float | None, Query(alias="from", ge=0, le=1e11, description="Unix seconds; left out: an hour ago.")
        ] = None,
        end: Annotated[
            float | None, Query(alias="to", ge=0, le=1e11, description="Unix seconds; left out: now.")
        ] = None,
        by: Annotated[str, Query(description="Of minute, hour, day, tenant, route, version, arm; with commas.")] = "",
        tenant: Filter = None,
        route: Filter = None,
        version: Filter = None,
        arm: Filter = None,
    ) -> dict[str, Any]:
        """Requests, tokens, cost and times, grouped."""
        names = check_by(by)
        end = control.clock() if end is None else end
        start = end - 3600 if start is None else start
        if not start <= end <= start + 400 * 86400:
            raise BadRequest(f"from {start:g} to {end:g} is no stretch of up to 400 days.", param="from")
        filters = {"tenant": who.held_to(tenant), "route": route, "version": version, "arm": arm}
        async with control.database.read() as connection:
            rows = await usage_rows(connection, start, end, filters)
        return {"from": start, "to": end, "rows": grouped(rows, names)}

    @router.get("/overview")
    async def get_overview(
        control: ControlPart,
        who: Viewer,
        window_s: Annotated[float, Query(ge=60, le=31 * 86400)] = 900.0,
        buckets: Annotated[int, Query(ge=1, le=1000)] = 60,
    ) -> dict[str, Any]:
        """Totals and a series of the last `window_s` seconds."""
        return await read_overview(control, who, window_s, buckets)

    @router.get("/live")
    async def get_live(
        control: ControlPart, who: Viewer, window_s: Annotated[float, Query(ge=60, le=86400)] = 900.0
    ) -> StreamingResponse:
        """The overview each second, as server-sent events."""
        return StreamingResponse(
            live(control, who, window_s), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )


def _add_requests(router: APIRouter, explorer: Explorer) -> None:
    @router.get("/requests")
    async def list_requests(who: Viewer, wanted: Annotated[Wanted, Query()]) -> Response:
        """Requests, newest first. A page may hold fewer than `limit` and still have a `next`: then not all was looked through.

        `next` continues a page where it ended, whatever has been recorded meanwhile. `through` says what was asked: control's index alone, or the
        analytical store too.
        """
        page = await explorer.page(wanted, who.held_to(wanted.tenant))
        told = [{"sequence": one.sequence} | exchange_told(one.record) for one in page.found]
        following = None if page.next is None else page.next.text()
        reached = None if page.next is None else page.next.us / 1e6
        return _json({"requests": told, "next": following, "looked_to": reached, "through": page.through})

    @router.get("/requests/{request_id}")
    async def get_request(control: ControlPart, who: Viewer, request_id: str) -> Response:
        """One request: its way, times, weights, and what was said of it."""
        return _json(await explain(control, who, request_id))


def exchange_told(record: bytes) -> dict[str, Any]:
    """All fields, also those that have their default; and `trace_id`, under which sinks know its spans, whether the client traced or not."""
    exchange = msgspec.msgpack.decode(record, type=Exchange)
    told = {name: getattr(exchange, name) for name in exchange.__struct_fields__}
    told["trace_id"] = trace_of(exchange).hex()
    for name in ("phases", "usage", "tried"):
        part = told[name]
        told[name] = {field: getattr(part, field) for field in part.__struct_fields__}
    if exchange.engine is not None:
        told["engine"] = dict(exchange.engine.lengths())
    told["tries"] = [{f: getattr(one, f) for f in one.__struct_fields__} for one in exchange.tries]
    if exchange.quality is not None:
        told["quality"] = quality_told(exchange.quality)
    told["findings"] = [{f: getattr(one, f) for f in one.__struct_fields__} for one in exchange.findings]
    if exchange.content is not None:
        told["content"] = _about(exchange.content)
    return told


def observation_told(observation: Observation) -> dict[str, Any]:
    """All fields; of texts that are sealed, that there are some and how long they are."""
    told = msgspec.structs.asdict(observation)
    if observation.content is not None:
        told["content"] = _about(observation.content)
    return told


def _about(content: Content) -> dict[str, Any]:
    """What may be told of content to those who may not read it."""
    return {"key": content.key, "bytes": len(content.sealed), "masked": content.masked, "cut": content.cut}


async def explain(control: Control, who: Principal, request_id: str) -> dict[str, Any]:
    """What is known of the request `request_id`.

    Raises:
        NotFound: if it is not known, or not the caller's to see.
    """
    async with control.database.read() as connection:
        row = (await connection.execute(select(exchanges).where(exchanges.c.id == request_id))).one_or_none()
        if row is None or not who.sees(row.tenant):
            raise NotFound(f"There is no request {request_id!r} in the index.", param="id")
        said = (
            await connection.execute(
                select(observations)
                .where(observations.c.request == request_id, observations.c.tenant == row.tenant)
                .order_by(observations.c.sequence)
            )
        ).all()
    exchange = msgspec.msgpack.decode(row.record, type=Exchange)
    in_experiment = {
        "name": exchange.experiment,
        "arm": exchange.arm,
        "epoch": exchange.epoch,
        "propensity": exchange.propensity,
        "unit": exchange.unit,
        "counted": row.epoch > 0,
    }
    return {
        "sequence": row.sequence,
        "request": exchange_told(row.record),
        "phases": phases_told(exchange.phases),
        "engine": engine_told(exchange),
        "tries": tries_told(exchange),
        "experiment": in_experiment if exchange.experiment else None,
        "observations": [
            {"sequence": one.sequence, "state": one.state}
            | observation_told(msgspec.msgpack.decode(one.record, type=Observation))
            for one in said
        ],
    }
