"""`/api/v1/alerts` and `/api/v1/targets`: what Alertmanager tells, and where Prometheus finds the engines."""

import asyncio
import hmac
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import select

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs, needs_in_tenant
from penstock.control.bootstrap import read_or_write_secret
from penstock.control.context import Control
from penstock.control.watch.alerts import parse_notice, read_alerts, take
from penstock.control.watch.alerts_act import read_actions
from penstock.core.errors import Unauthenticated
from penstock.store.schema import replicas

router = APIRouter(tags=["monitoring"])
_LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))


def monitoring_token(control: Control) -> str:
    """What Prometheus and Alertmanager show; made if there is none. The file is read each time: another token needs no restart.

    Where the settings name a file, others may read it: it stands in a folder that is shared with them alone.

    Raises:
        Damaged: if the file is empty.
        Unavailable: if it cannot be read or written.
    """
    named = control.settings.control.monitoring_token_file
    path = Path(named) if named else control.data / "monitoring.token"
    return read_or_write_secret(path, control.entropy(32).hex(), mode=0o644 if named else 0o600)


async def check_monitoring(request: Request, control: ControlPart) -> None:
    """A dependency: the caller must show the monitoring token.

    Raises:
        Unauthenticated: if it does not.
    """
    token = await asyncio.to_thread(monitoring_token, control)
    header = request.headers.get("authorization", "")
    if not hmac.compare_digest(header.encode(), f"Bearer {token}".encode()):
        raise Unauthenticated("The monitoring token is needed here.", code="invalid_monitoring_token")


@router.post("/alerts", dependencies=[Depends(check_monitoring)])
async def tell_alerts(request: Request, control: ControlPart) -> dict[str, int]:
    """Alertmanager's webhook, version 4, with the monitoring token."""
    changed = await take(control, parse_notice(await request.body()))
    for alert in changed:
        for listener in control.alerted:
            listener(alert)
    return {"changed": len(changed)}


@router.get("/alerts")
async def list_alerts(
    control: ControlPart,
    who: Annotated[Principal, Depends(needs_in_tenant("deployments:read"))],
    state: Literal["firing", "resolved"] | None = None,
    before: Annotated[int | None, Query(ge=0, le=2**63 - 1, description="Those before this sequence.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Alerts that Alertmanager told of, newest first; a caller who belongs to a tenant sees that one's alone."""
    found = await read_alerts(control, state=state, tenant=who.held_to(), before=before, limit=limit)
    return Response(msgspec.json.encode(found), media_type="application/json")


@router.get("/alerts/actions")
async def list_actions(
    control: ControlPart,
    _who: Annotated[Principal, Depends(needs("deployments:read"))],
    environment: str | None = None,
    model: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    """What alerts made control do by an environment's `auto_rollback`, and why it did nothing, newest first."""
    return await read_actions(control, environment=environment, model=model, limit=limit)


@router.get("/targets", dependencies=[Depends(check_monitoring)])
async def targets(request: Request, control: ControlPart) -> list[dict[str, Any]]:
    """The engines that control runs, for Prometheus' `http_sd_configs`, with the monitoring token.

    An engine on control's own machine is named by the host that the caller asked.
    """
    here = request.url.hostname or "127.0.0.1"
    async with control.database.read() as connection:
        rows = (await connection.execute(select(replicas).order_by(replicas.c.id))).all()
    return [
        {
            "targets": [_address(row.url, here)],
            "labels": {"pool": row.pool, "replica": row.id, "__scheme__": urlsplit(row.url).scheme},
        }
        for row in rows
    ]


def _address(url: str, here: str) -> str:
    parts = urlsplit(url)
    host = here if parts.hostname in _LOOPBACK else parts.hostname or here
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
