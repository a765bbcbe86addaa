"""/api/v1/diff: what differs between two versions; and /api/v1/requests/ID/provenance: what stands behind an answer."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Response

from penstock.access.principals import Principal
from penstock.control.auth import needs, needs_in_tenant
from penstock.control.context import Control
from penstock.control.versions.diffs import Differ
from penstock.control.versions.find import find_version, reference_in
from penstock.control.versions.provenance import provenance_of, read_provenance
from penstock.core.references import parse_reference

Reference = Annotated[str, Query(max_length=255, description="NAME:LABEL, NAME@ALIAS or NAME@sha256:...")]


def compare_router(control: Control) -> APIRouter:
    """The routes, to stand below /api/v1; differences are remembered, because a digest's files never change."""
    router = APIRouter(tags=["models"])
    differ = Differ(control)

    @router.get("/diff")
    async def diff(_who: Annotated[Principal, Depends(needs("models:read"))], a: Reference, b: Reference) -> Response:
        """What differs from version `a` to version `b`: tensors, tokenizer, template, configuration, processing, metadata, metrics, card; and the suggested bump with its reasons."""
        async with control.database.read() as connection:
            before = await find_version(connection, parse_reference(a))
            after = await find_version(connection, parse_reference(b))
        found = await differ.diff(before, after)
        told = {
            side: {"model": row.model, "label": row.label, "digest": row.digest}
            for side, row in (("a", before), ("b", after))
        }
        return Response(msgspec.json.encode({**told, **msgspec.to_builtins(found)}), media_type="application/json")

    @router.get("/requests/{request_id}/provenance")
    async def provenance(
        who: Annotated[Principal, Depends(needs_in_tenant("usage:read"))], request_id: str
    ) -> dict[str, Any]:
        """What stands behind an answer: digest, build, revisions with who, gates and approvals, lineage, data sets with their chain of custody."""
        async with control.database.read() as connection:
            return await read_provenance(connection, request_id, who.held_to())

    @router.get("/models/{name}/versions/{label}/provenance")
    async def version_provenance(
        _who: Annotated[Principal, Depends(needs("models:read"))],
        name: str,
        label: str,
        pool: Annotated[str, Query(max_length=255, description="That ran it: tells which build.")] = "",
        at: Annotated[float | None, Query(ge=0, le=1e11, description="Unix seconds; left out: now.")] = None,
    ) -> dict[str, Any]:
        """The same of a version at a time: for an answer whose record has not been taken in yet."""
        async with control.database.read() as connection:
            version = await find_version(connection, reference_in(name, label))
            return await provenance_of(connection, version, pool, control.clock() if at is None else at)

    return router
