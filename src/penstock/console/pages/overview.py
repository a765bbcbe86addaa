"""The overview: figures of a window, what is deployed, gateways, experiments, the latest requests."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from penstock.console.charts import overview_charts
from penstock.console.live import live
from penstock.console.pages import experiments
from penstock.console.shapes import Alert, Deployment, Gateways, Overview
from penstock.console.shapes_requests import Requests
from penstock.console.visit import Visit, allowed

WINDOWS = ((900, "15 min"), (3600, "1 h"), (86400, "24 h"))
FRAGMENTS = ("alerts", "figures", "charts", "state", "recent")
_RECENT = 12
_ALERTS = 20


async def show(visit: Visit) -> Response:
    """The page."""
    window = _window(visit)
    return visit.page("overview.html", windows=WINDOWS, fragments=FRAGMENTS, **await _read(visit, window))


async def live_overview(visit: Visit) -> Response:
    """Its regions, again and again."""
    window = _window(visit)

    async def read() -> Mapping[str, str]:
        values = await _read(visit, window)
        return {name: visit.render(f"overview/{name}.html", **values) for name in FRAGMENTS}

    return await live(visit, read)


def _window(visit: Visit) -> int:
    text = visit.query("window")
    return int(text) if text in {str(seconds) for seconds, _ in WINDOWS} else WINDOWS[0][0]


async def _read(visit: Visit, window: int) -> dict[str, Any]:
    api = visit.api
    figures, alerts, deployments, gateways, latest, running = await asyncio.gather(
        allowed(api.get("/overview", Overview, window_s=window), None),
        allowed(api.get("/alerts", tuple[Alert, ...], state="firing", limit=_ALERTS), ()),
        allowed(api.get("/deployments", tuple[Deployment, ...]), ()),
        allowed(api.get("/gateways", Gateways), None),
        allowed(api.get("/requests", Requests, limit=_RECENT), Requests()),
        allowed(experiments.running(visit), None),
    )
    return {
        "window": window,
        "alerts": alerts,
        "figures": figures,
        "plots": overview_charts(figures) if figures is not None and figures.requests else [],
        "deployments": deployments,
        "gateways": gateways,
        "experiments": running,
        "recent": latest.requests,
        "example_model": deployments[0].model if deployments else "support-bot",
    }
