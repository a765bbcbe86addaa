"""The control plane's HTTP application: /api/v1, /internal/v1 and the probes on one FastAPI app."""

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import JSONResponse

from penstock import __version__
from penstock.control.api.aliases import router as aliases_router
from penstock.control.api.blocks import router as blocks_router
from penstock.control.api.builds import router as builds_router
from penstock.control.api.canaries import router as canaries_router
from penstock.control.api.cards import router as cards_router
from penstock.control.api.compare import compare_router
from penstock.control.api.datasets import KIND as DATASETS
from penstock.control.api.datasets import router as datasets_router
from penstock.control.api.deployments import router as deployments_router
from penstock.control.api.drift import router as drift_router
from penstock.control.api.evaluations import router as evaluations_router
from penstock.control.api.gates import router as gates_router
from penstock.control.api.keys import router as keys_router
from penstock.control.api.models import router as models_router
from penstock.control.api.monitoring import router as monitoring_router
from penstock.control.api.pipelines import router as pipelines_router
from penstock.control.api.readiness import router as readiness_router
from penstock.control.api.resources import apply_router, resource_router
from penstock.control.api.storage import router as storage_router
from penstock.control.api.system import internal, probes
from penstock.control.api.system import router as system_router
from penstock.control.api.uploads import router as uploads_router
from penstock.control.api.webhooks import router as webhooks_router
from penstock.control.auth import needs
from penstock.control.bodies import BoundedBodies
from penstock.control.context import Control
from penstock.control.deploy.publisher import Publisher
from penstock.control.errors import install_error_handlers
from penstock.control.evaluators.kind import evaluator_kinds
from penstock.control.ingest.reader import MAX_BODY_BYTES as MAX_BATCH_BYTES
from penstock.control.keys import KeyKind
from penstock.control.kinds import Kind, resource_kinds
from penstock.control.measures import Measures
from penstock.control.readiness import Readiness
from penstock.control.rules import Application
from penstock.control.webhooks.kind import WebhookKind

MAX_BODY_BYTES = 8 << 20
MAX_INTERNAL_BODY_BYTES = MAX_BATCH_BYTES + 1  # what is larger is refused by name
_TEXT = """The control plane of Penstock: models and versions, deployments, resources, keys, experiments.

Every call carries `Authorization: Bearer KEY`. Every error is `{"error": {"message", "type", "param", "code"}}`."""


def build_app(
    control: Control,
    publisher: Publisher,
    readiness: Readiness,
    *,
    routers: Sequence[APIRouter] = (),
    kinds: Sequence[Kind] = (),
) -> FastAPI:
    """The app over `control`.

    Args:
        control: the stores.
        publisher: gives Snapshots to gateways.
        readiness: what /readyz asks.
        routers: more endpoints: those whose prefix begins with /internal stand as they are, the others below /api/v1.
        kinds: more kinds of resources for `apply`; they may refer to all of ours.
    """
    app = Application(
        title="Penstock control",
        version=__version__,
        description=_TEXT,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.control = control
    app.state.publisher = publisher
    install_error_handlers(app)
    app.add_middleware(
        BoundedBodies,
        limit=MAX_BODY_BYTES,
        larger={"/internal/": MAX_INTERNAL_BODY_BYTES},
        unbounded=("/api/v1/blobs/",),
    )
    measures = Measures(control, publisher)
    measures.install(app)

    own = (*resource_kinds(control.settings.control.environment), *evaluator_kinds(), WebhookKind(control))
    api = APIRouter(prefix="/api/v1")
    for kind in own:
        api.include_router(resource_router(kind))
    for part in (
        keys_router,
        models_router,
        builds_router,
        uploads_router,
        storage_router,
        aliases_router,
        cards_router,
        datasets_router,
        compare_router(control),
        readiness_router,
        deployments_router,
        blocks_router,
        gates_router,
        evaluations_router,
        canaries_router,
        pipelines_router,
        webhooks_router,
        monitoring_router,
        drift_router,
        system_router,
    ):
        api.include_router(part)
    api.include_router(apply_router((*own, DATASETS, KeyKind(control), *kinds)))
    for router in routers:
        if not router.prefix.startswith("/internal"):
            api.include_router(router)
    app.include_router(api)
    app.include_router(internal)
    for router in routers:
        if router.prefix.startswith("/internal"):
            app.include_router(router)
    app.include_router(probes)

    @app.get("/api/v1/conditions", tags=["system"], dependencies=[Depends(needs("deployments:read"))])
    async def conditions() -> list[dict[str, Any]]:
        """What fails again and again in this process, and why: a replica that does not start, a loop that cannot go on."""
        return [msgspec.to_builtins(condition) for condition in readiness.conditions()]

    @app.get("/readyz", tags=["probes"])
    async def readyz() -> JSONResponse:
        """200 when everything that is deployed is served; 503 with what is missing until then."""
        missing: Sequence[str] = readiness.missing()
        body: dict[str, Any] = {"status": "ready" if not missing else "not ready", "missing": list(missing)}
        return JSONResponse(body, status_code=503 if missing else 200, headers={"retry-after": "1"} if missing else {})

    return app
