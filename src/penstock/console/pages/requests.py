"""The explorer of requests, and one request with its phases."""

import datetime as dt
from itertools import pairwise
from typing import Any, get_args

import httpx
import msgspec
from starlette.responses import Response

from penstock.console.client import at
from penstock.console.shapes import Deployment
from penstock.console.shapes_content import Content
from penstock.console.shapes_requests import Explained, Phases, Request, Requests, Stretch
from penstock.console.shapes_versions import Provenance
from penstock.console.visit import Visit, allowed
from penstock.core.errors import BadRequest, Forbidden
from penstock.core.exchange import Outcome

_PAGE = 50
_TIMES = ("from", "to")  # as browsers send `datetime-local`, in UTC
_FEW = ("model", "outcome", "id")
_MORE = ("tenant", "route", "version", "arm", "error", "status", "finding", "min_latency_ms", "min_cost_usd")
_NAMES = {
    "decoded": "Read and decode",
    "admitted": "Check, screen, wait for a place",
    "dispatched": "Send to the engine",
    "first_token": "Wait for the first token",
    "last_token": "Answer",
    "done": "Settle",
}


_ENGINE = {
    "preprocess": "Read and tokenise",
    "queue": "Wait in the engine",
    "prefill": "Read the prompt",
    "decode": "Write the answer",
    "postprocess": "Process and send",
}


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One phase: its length and end in seconds, and its place on a bar of 1000."""

    name: str
    kind: str
    length: float
    end: float
    x: float
    width: float


def segments(phases: Phases) -> list[Segment]:
    """The phases that were reached, in order."""
    names = list(_NAMES)
    ends = [(name, getattr(phases, name)) for name in names]
    reached = [(name, end) for name, end in ends if end > 0]
    whole = max((end for _, end in reached), default=0)
    found = []
    for (_, start), (name, end) in pairwise([("", 0), *reached]):
        length = max(0, end - start)
        found.append(
            Segment(
                name=_NAMES[name],
                kind=f"ph{names.index(name)}",
                length=length / 1e9,
                end=end / 1e9,
                x=round(start / whole * 1000, 2),
                width=round(max(length / whole * 1000, 1.5), 2),
            )
        )
    return found


def engine_segments(engine: tuple[Stretch, ...], phases: Phases) -> list[Segment]:
    """The engine's phases, on the bar of the request's own."""
    whole = max(getattr(phases, name) for name in _NAMES) / 1e6
    names = list(_ENGINE)
    return [
        Segment(
            name=_ENGINE.get(one.name, one.name),
            kind=f"ph{names.index(one.name)}" if one.name in _ENGINE else "ph0",
            length=one.ms / 1e3,
            end=one.end_ms / 1e3,
            x=round(one.begin_ms / whole * 1000, 2),
            width=round(max(one.ms / whole * 1000, 1.5), 2),
        )
        for one in engine
        if whole > 0
    ]


async def listing(visit: Visit) -> Response:
    """The explorer."""
    filters = {name: visit.query(name) for name in (*_TIMES, *_FEW, *_MORE)}
    asked = filters | {name: _unix(name, filters[name]) for name in _TIMES}
    page = await visit.api.get("/requests", Requests, limit=_PAGE, before=visit.query("before"), **asked)
    routes = await _routes(visit)
    older = None
    if page.next:
        parameters = {name: value for name, value in filters.items() if value}
        older = str(httpx.URL("/requests", params={**parameters, "before": page.next}))
    return visit.page(
        "requests.html",
        exchanges=page.requests,
        filters=filters,
        filtered=any(filters.values()) or bool(visit.query("before")),
        unfolded=any(filters[name] for name in _MORE),
        older=older,
        looked_to=page.looked_to,
        routes=routes,
        outcomes=get_args(Outcome),
        example_model=routes[0] if routes else "support-bot",
    )


def _unix(name: str, text: str) -> float | None:
    """Unix seconds of what a field of a date and a time holds.

    Raises:
        BadRequest: if it is no time.
    """
    if not text:
        return None
    try:
        return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()
    except (ValueError, OverflowError):
        raise BadRequest(f"{name} is {text!r}: a time such as 2026-11-23T01:02 is needed.", param=name) from None


async def _routes(visit: Visit) -> list[str]:
    deployments = await visit.api.get("/deployments", tuple[Deployment, ...])
    resources = await visit.api.get("/routes", list[dict[str, Any]])
    return sorted({one.model for one in deployments} | {str(route["name"]) for route in resources})


async def show(visit: Visit) -> Response:
    """One request; what was said only to those who ask for it, because each reading is written down."""
    found = await visit.api.get(at("requests", visit.path("id")), Explained)
    request = found.request
    content, refused = None, ""
    with_texts = any(one.text_chars or one.corrected_chars for one in found.observations)
    if visit.query("content") and (request.content is not None or with_texts):
        try:
            content = await visit.api.get(f"{at('requests', request.id)}/content", Content)
        except Forbidden as error:
            refused = error.message
    behind = await allowed(visit.api.get(f"{at('requests', request.id)}/provenance", Provenance), Provenance())
    return visit.page(
        "request.html",
        x=request,
        behind=behind,
        observations=found.observations,
        segments=segments(request.phases),
        engine=engine_segments(found.engine, request.phases),
        tries=found.tries,
        speed=_speed(request),
        version_link=_version_link(request),
        content=content,
        with_texts=with_texts,
        refused=refused,
    )


def _speed(request: Request) -> float | None:
    phases = request.phases
    took = phases.last_token - (phases.dispatched or phases.admitted)
    return request.usage.completion / (took / 1e9) if took > 0 and request.usage.completion else None


def _version_link(request: Request) -> str | None:
    name, _, label = request.version.partition(":")
    return at("models", name, label) if name and label else None
