"""/api/v1/drift: what is watched of each model and arm, how far each signal has moved, and what has alarmed."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query
from pydantic import Field
from sqlalchemy import Row, select

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs
from penstock.control.specs.resources import Spec
from penstock.control.watch.drift_store import accept_group, decode_group
from penstock.core.errors import BadRequest, NotFound
from penstock.experiments.drift_daily import Comparison
from penstock.experiments.drift_signals import SIGNALS, shown
from penstock.experiments.drift_watch import FIRST, RUN_LENGTH, Watch, standing, today
from penstock.store.schema_drift import drift_days, drift_groups

router = APIRouter(tags=["drift"])
Reader = Annotated[Principal, Depends(needs("deployments:read"))]
Writer = Annotated[Principal, Depends(needs("deployments:write"))]


class AcceptBody(Spec):
    """The body of POST /drift/accept."""

    model: str = Field(min_length=1, max_length=255, description="NAME:LABEL, or a route's name.")
    arm: str = Field(default="", max_length=200, description="EXPERIMENT/ARM; left out: no experiment.")
    signal: str | None = Field(default=None, description="Left out: all.")
    reason: str = Field(min_length=1, max_length=4096, description="Why the change is as it should be.")


def watch_answer(watch: Watch) -> dict[str, Any]:
    """A watch as the API tells it."""
    signal = SIGNALS[watch.signal]
    reference = watch.reference.tally if watch.reference is not None else None
    alarm = watch.alarm
    day = today(watch)
    gathered = watch.growing.n if watch.growing is not None else 0
    return {
        "signal": watch.signal,
        "of": signal.of,
        "against": watch.against,
        "state": "alarm" if alarm is not None else "gathering" if reference is None else "watching",
        "observations": gathered if reference is None else reference.n,
        "needed": FIRST,
        "watched": watch.watched,
        "reference": None if reference is None or signal.kind in {"words", "choice"} else shown(signal, reference.mean),
        "recent": None if not watch.watched or signal.kind in {"words", "choice"} else shown(signal, watch.recent),
        "standing": standing(watch),
        "alarm": None
        if alarm is None
        else {"at": alarm.at, "after": alarm.watched, "sequence": alarm.sequence, "words": alarm.words},
        "today": None if day is None else msgspec.structs.asdict(day) | {"shifted": day.shifted},
    }


def group_answer(row: Row[Any]) -> dict[str, Any]:
    """A model and arm as the API tells it."""
    watches = [watch_answer(watch) for watch in decode_group(row.record).watches]
    states = {one["state"] for one in watches}
    return {
        "model": row.model,
        "arm": row.arm,
        "since": row.since,
        "last_at": row.last_at,
        "ended_at": row.ended_at,
        "state": next(state for state in ("alarm", "watching", "gathering") if state in states),
        "run_length": RUN_LENGTH,
        "signals": watches,
    }


@router.get("/drift")
async def list_drift(
    control: ControlPart,
    _who: Reader,
    model: Annotated[str | None, Query(description="NAME:LABEL, a route, or NAME: all its versions.")] = None,
    ended: Annotated[bool, Query(description="Also those whose version was replaced.")] = False,
) -> list[dict[str, Any]]:
    """Every model and arm that is watched, the last used first. A false alarm takes `run_length` exchanges of one of them in the mean at least."""
    statement = select(drift_groups).order_by(drift_groups.c.last_at.desc(), drift_groups.c.model, drift_groups.c.arm)
    if model is not None:
        named = drift_groups.c.model == model
        statement = statement.where(
            named if ":" in model else named | drift_groups.c.model.startswith(f"{model}:", autoescape=True)
        )
    if not ended:
        statement = statement.where(drift_groups.c.ended_at.is_(None))
    async with control.database.read() as connection:
        return [group_answer(row) for row in await connection.execute(statement.limit(200))]


@router.get("/drift/days")
async def list_days(
    control: ControlPart,
    _who: Reader,
    model: str,
    arm: str = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    """The daily comparisons of a model and arm with its reference, newest first; `day` counts from 1970, in UTC.

    `psi` is the population stability index; `distance` Kolmogorov and Smirnov's, of what has no order the largest difference of two shares; `p` how likely chance
    alone makes such a difference, at most. A day has `shifted` if `psi` is 0.25 at least and `p` one in a million at most.
    """
    statement = (
        select(drift_days)
        .where(drift_days.c.model == model, drift_days.c.arm == arm)
        .order_by(drift_days.c.day.desc(), drift_days.c.signal)
    )
    async with control.database.read() as connection:
        rows = await connection.execute(statement.limit(limit))
        return [
            {"day": row.day, "signal": row.signal, **msgspec.structs.asdict(result), "shifted": result.shifted}
            for row in rows
            for result in [Comparison(n=row.n, psi=row.psi, distance=row.distance, p=row.p)]
        ]


@router.post("/drift/accept")
async def accept(body: AcceptBody, control: ControlPart, who: Writer) -> dict[str, Any]:
    """A change that is as it should be: the alarm is over, and a new reference begins."""
    if body.signal is not None and body.signal not in SIGNALS:
        raise BadRequest(f"{body.signal!r} is no signal: use one of {', '.join(SIGNALS)}.", param="signal")
    async with control.change(who) as change:
        await accept_group(change, (body.model, body.arm), body.signal, body.reason)
    async with control.database.read() as connection:
        row = (
            await connection.execute(
                select(drift_groups).where(drift_groups.c.model == body.model, drift_groups.c.arm == body.arm)
            )
        ).one_or_none()
    if row is None:
        raise NotFound(f"Nothing of {body.model!r} is watched.", param="model")
    return group_answer(row)
