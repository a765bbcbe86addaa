"""/api/v1/datasets: records of data by digest, their revisions, chain of custody, and the versions that used them."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs
from penstock.control.specs.resources import Document
from penstock.control.versions.datasets import DataSetKind, find_digest, read_custody, versions_of
from penstock.core.errors import BadRequest, Conflict, NotFound
from penstock.store.schema_versions import dataset_revisions, datasets

router = APIRouter(prefix="/datasets", tags=["datasets"])
Reader = Annotated[Principal, Depends(needs("models:read"))]
Writer = Annotated[Principal, Depends(needs("models:write"))]
KIND = DataSetKind()


def _answer(row: Any) -> dict[str, Any]:
    return {
        "kind": KIND.name,
        "name": row.name,
        "number": row.number,
        "digest": row.digest,
        "spec": row.spec,
        "origin": row.origin,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


async def _one(connection: AsyncConnection, name: str) -> dict[str, Any]:
    row = (await connection.execute(select(datasets).where(datasets.c.name == name))).one_or_none()
    if row is None:
        raise NotFound(f"There is no data set {name!r}.")
    return _answer(row)


@router.get("")
async def list_datasets(control: ControlPart, _who: Reader) -> list[dict[str, Any]]:
    """All data sets, by name."""
    async with control.database.read() as connection:
        return [_answer(row) for row in await connection.execute(select(datasets).order_by(datasets.c.name))]


@router.post("", status_code=201)
async def register(body: Document, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Register a data set."""
    _check_kind(body)
    async with control.change(who) as change:
        if body.name in await KIND.current(change.connection):
            raise Conflict(f"There is a data set {body.name!r} already.", hint="PUT makes a new revision.")
        await KIND.put(change, body.name, KIND.parse(body.spec), "api")
        return await _one(change.connection, body.name)


@router.get("/{name}")
async def show_dataset(name: str, control: ControlPart, _who: Reader) -> dict[str, Any]:
    """One, by name or digest: its record, revisions, chain of custody with what is missing of it, and the versions that used it."""
    async with control.database.read() as connection:
        found, digest = await find_digest(connection, name, None)
        rows = await connection.execute(
            select(dataset_revisions)
            .where(dataset_revisions.c.name == found)
            .order_by(dataset_revisions.c.number.desc())
        )
        revisions = [
            {"number": r.number, "digest": r.digest, "spec": r.spec, "principal": r.principal, "at": r.at} for r in rows
        ]
        shown = next(one for one in revisions if one["digest"] == digest)
        return {
            "kind": KIND.name,
            "name": found,
            "number": shown["number"],
            "digest": digest,
            "spec": shown["spec"],
            "revisions": revisions,
            "custody": msgspec.to_builtins(await read_custody(connection, digest)),
            "versions": await versions_of(connection, digest),
        }


@router.put("/{name}")
async def put_dataset(name: str, body: Document, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Register a data set, or a new revision of its record; the former ones stay."""
    if body.name != name:
        raise BadRequest(f"The body names {body.name!r} and the path {name!r}.", param="name")
    _check_kind(body)
    async with control.change(who) as change:
        await KIND.put(change, name, KIND.parse(body.spec), "api")
        return await _one(change.connection, name)


@router.delete("/{name}", status_code=204)
async def delete_dataset(name: str, control: ControlPart, who: Writer) -> None:
    """Take the name away, unless a version used the data; the record's revisions stay."""
    async with control.change(who) as change:
        await KIND.delete(change, name)


def _check_kind(body: Document) -> None:
    if body.kind is not None and body.kind != KIND.name:
        raise BadRequest(f"The body is a {body.kind}, the path is for data sets.", param="kind")
