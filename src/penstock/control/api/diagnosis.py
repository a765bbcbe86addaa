"""`/api/v1/diagnosis`: what is wrong, the most likely cause first, as far as control and its machine can see."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from penstock.access.principals import Principal
from penstock.control.api.system import PublisherPart
from penstock.control.auth import ControlPart, needs
from penstock.control.context import Control
from penstock.control.deploy.publisher import Publisher
from penstock.control.figures.requests_search import latest
from penstock.control.readiness import Readiness
from penstock.control.watch.alerts import read_alerts
from penstock.diagnosis.cause import Cause
from penstock.diagnosis.diagnose import diagnose, healthy
from penstock.diagnosis.seen import AlertSeen, ConditionSeen, Machine, Plane, Seen
from penstock.diagnosis.traffic import WINDOW_S, traffic_of

_WORKER_FORGOTTEN_S = 60.0
_REQUESTS = 500

Look = Callable[[float], Awaitable[Machine]]  # handed how many seconds of requests to tell


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: `causes` in order of likelihood, and what they were drawn from."""

    healthy: bool
    causes: tuple[Cause, ...]
    seen: Seen


async def plane_of(control: Control, publisher: Publisher, readiness: Readiness, window_s: float = WINDOW_S) -> Plane:
    """What control knows now; of requests those of the last `window_s` seconds, at most some hundred.

    Raises:
        Unavailable: if the database cannot be read.
    """
    now = control.clock()
    async with control.database.read() as connection:
        exchanges = await latest(connection, max(0.0, now - window_s), _REQUESTS)
    firing = await read_alerts(control, state="firing", tenant=None)
    current = publisher.current
    return Plane(
        generation=current.generation if current is not None else 0,
        workers=tuple(one for one in publisher.reports.values() if one.at >= now - _WORKER_FORGOTTEN_S),
        conditions=tuple(
            ConditionSeen(subject=one.subject, message=one.message, failures=one.failures)
            for one in readiness.conditions()
        ),
        alerts=tuple(AlertSeen(name=one.name, summary=one.summary, runbook=one.runbook) for one in firing),
        traffic=traffic_of(exchanges, now, window_s),
    )


def diagnosis_router(readiness: Readiness, look: Look | None) -> APIRouter:
    """The route, to stand below /api/v1; `look` looks at control's own machine, if it runs beside a supervisor."""
    router = APIRouter(tags=["system"])

    @router.get("/diagnosis")
    async def diagnosis(
        request: Request,
        control: ControlPart,
        publisher: PublisherPart,
        _who: Annotated[Principal, Depends(needs("deployments:read"))],
        machine: Annotated[bool, Query(description="Look at control's own machine, too; some seconds.")] = True,
        window_s: Annotated[
            float, Query(ge=1, le=3600, description="Of requests, those of so many seconds.")
        ] = WINDOW_S,
    ) -> Response:
        """What is wrong with the installation, in order of likelihood, with evidence and the next command."""
        seen = Seen(
            at=control.clock(),
            machine=await look(window_s) if look is not None and machine else None,
            plane=await plane_of(control, publisher, readiness, window_s),
        )
        causes = diagnose(seen)
        told = Diagnosis(healthy=healthy(causes), causes=tuple(causes), seen=seen)
        return Response(msgspec.json.encode(told), media_type="application/json")

    return router
