"""/api/v1/{tenants,pools,routes,policies,environments}: resources by name; and /api/v1/apply."""

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Permission, Principal
from penstock.control.apply import PERMISSIONS, apply_documents, read_documents
from penstock.control.auth import ControlPart, needs, needs_in_tenant
from penstock.control.context import Change
from penstock.control.kinds import Kind, ResourceKind
from penstock.control.specs.resources import Document
from penstock.core.errors import BadRequest, Conflict, NotFound
from penstock.store.schema import resources

Applier = Annotated[Principal, Depends(needs(*sorted(set(PERMISSIONS.values()))))]
Override = Annotated[
    str,
    Query(
        max_length=4096,
        description="Why pools may name versions that do not pass their gates. Administrators alone may; it stands in the audit trail.",
    ),
]
_READ: dict[str, Permission] = {
    "Tenant": "tenants:read",
    "Policy": "tenants:read",
    "Evaluator": "experiments:read",
    "References": "experiments:read",
}


def resource_router(kind: ResourceKind) -> APIRouter:
    """The endpoints of one kind of resource."""
    router = APIRouter(prefix=f"/{kind.plural}", tags=[kind.plural])
    permission = _READ.get(kind.name, "deployments:read")
    own = kind.name == "Tenant"  # who belongs to one may read what it is given; what it is given others decide
    reader = Annotated[Principal, Depends(needs_in_tenant(permission) if own else needs(permission))]
    writer = Annotated[Principal, Depends(needs(PERMISSIONS[kind.name]))]
    one = kind.name.lower()
    article = "an" if one[0] in "aeiou" else "a"

    @router.get("", summary=f"All {kind.plural}")
    async def list_all(control: ControlPart, who: reader) -> list[dict[str, Any]]:
        async with control.database.read() as connection:
            return [{"kind": kind.name, **row} for row in await _rows(connection, kind, who.held_to())]

    @router.get("/{name}", summary=f"One {one}")
    async def show(name: str, control: ControlPart, who: reader) -> dict[str, Any]:
        who.held_to(name if own else None)
        async with control.database.read() as connection:
            return await _one(connection, kind, name)

    @router.post("", status_code=201, summary=f"Create {article} {one}")
    async def create(body: Document, control: ControlPart, who: writer, override: Override = "") -> dict[str, Any]:
        async with control.change(who) as change:
            change.override = override
            if body.name in await kind.current(change.connection):
                raise Conflict(f"There is {article} {one} {body.name!r} already.", hint="PUT replaces it.")
            return await _put(change, kind, body)

    @router.put("/{name}", summary=f"Create or replace {article} {one}")
    async def put(
        name: str, body: Document, control: ControlPart, who: writer, override: Override = ""
    ) -> dict[str, Any]:
        if body.name != name:
            raise BadRequest(f"The body names {body.name!r} and the path {name!r}.", param="name")
        async with control.change(who) as change:
            change.override = override
            return await _put(change, kind, body)

    @router.delete("/{name}", status_code=204, summary=f"Remove {article} {one}")
    async def remove(name: str, control: ControlPart, who: writer) -> None:
        async with control.change(who) as change:
            await kind.delete(change, name)

    return router


async def _put(change: Change, kind: ResourceKind, body: Document) -> dict[str, Any]:
    if body.kind is not None and body.kind != kind.name:
        raise BadRequest(f"The body is a {body.kind}, the path is for {kind.plural}.", param="kind")
    await kind.put(change, body.name, kind.parse(body.spec), "api")
    return await _one(change.connection, kind, body.name)


async def _rows(connection: AsyncConnection, kind: ResourceKind, name: str | None = None) -> list[dict[str, Any]]:
    statement = select(resources).where(resources.c.kind == kind.name).order_by(resources.c.name)
    if name is not None:
        statement = statement.where(resources.c.name == name)
    return [
        {
            "name": row.name,
            "spec": kind.dump(kind.model.model_validate(row.spec)),
            "origin": row.origin,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
        }
        for row in await connection.execute(statement)
    ]


async def _one(connection: AsyncConnection, kind: ResourceKind, name: str) -> dict[str, Any]:
    rows = await _rows(connection, kind, name)
    if not rows:
        raise NotFound(f"There is no {kind.name.lower()} {name!r}.")
    return {"kind": kind.name, **rows[0]}


def apply_router(kinds: tuple[Kind, ...]) -> APIRouter:
    """POST /apply."""
    router = APIRouter(tags=["apply"])

    @router.post("/apply", summary="Bring resources to what the documents say")
    async def apply(
        request: Request,
        control: ControlPart,
        who: Applier,
        dry_run: Annotated[bool, Query(description="Only show the difference.")] = False,
        prune: Annotated[bool, Query(description="Remove what an earlier apply made and is gone.")] = False,
        override: Override = "",
    ) -> dict[str, Any]:
        """YAML documents, or JSON: {"documents": [...]}.

        All of it is applied, or nothing. The answer has a step for each resource: create, change (with the paths that differ), keep, delete.
        """
        body = await request.body()
        if request.headers.get("content-type", "").startswith("application/json"):
            try:
                parsed = msgspec.json.decode(body)
            except RecursionError:
                raise BadRequest("The JSON is nested too deeply.", param="body") from None
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise BadRequest(f"The body is not JSON: {error}.", param="body") from None
            listed = parsed.get("documents") if isinstance(parsed, dict) else None
            if not isinstance(listed, list):
                raise BadRequest("The body must be {'documents': [...]}.", param="documents")
            documents: list[object] = listed
        else:
            try:
                documents = await asyncio.to_thread(read_documents, body.decode())  # slow: others get their turns
            except UnicodeDecodeError:
                raise BadRequest("The body is not UTF-8.", param="body") from None
        steps = await apply_documents(
            control, kinds, documents, caller=who, dry_run=dry_run, prune=prune, override=override
        )
        return {"dry_run": dry_run, "steps": msgspec.to_builtins(steps)}

    return router
