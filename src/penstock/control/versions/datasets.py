"""Data sets: records of data that lies elsewhere, by digest; every revision of a record is kept, and so is the chain of custody."""

from typing import Any

import msgspec
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.kinds import Origin, parse_spec
from penstock.control.specs.resources import Spec
from penstock.control.specs.version import DataSetSpec
from penstock.core.digests import short
from penstock.core.errors import Conflict, NotFound
from penstock.registry.datasets import Custody, DataSet, chain_of
from penstock.store.schema_versions import dataset_revisions, datasets, lineage_edges


class DataSetKind:
    """The kind DataSet."""

    name = "DataSet"
    plural = "datasets"

    def parse(self, spec: object) -> Spec:
        """See `Kind.parse`."""
        return parse_spec(DataSetSpec, spec)

    def dump(self, spec: Spec) -> dict[str, Any]:
        """See `Kind.dump`."""
        return spec.model_dump(mode="json")

    async def current(self, connection: AsyncConnection, origin: Origin | None = None) -> dict[str, dict[str, Any]]:
        """See `Kind.current`."""
        statement = select(datasets).order_by(datasets.c.name)
        if origin is not None:
            statement = statement.where(datasets.c.origin == origin)
        rows = await connection.execute(statement)
        return {row.name: self.dump(DataSetSpec.model_validate(row.spec)) for row in rows}

    async def put(self, change: Change, name: str, spec: Any, origin: Origin) -> dict[str, Any]:
        """See `Kind.put`: another spec is another revision; the same one is none."""
        dumped = self.dump(spec)
        statement = select(datasets).where(datasets.c.name == name)
        now = (await change.connection.execute(statement)).one_or_none()
        if now is not None and now.spec == dumped:
            return {}
        last = select(func.coalesce(func.max(dataset_revisions.c.number), 0)).where(dataset_revisions.c.name == name)
        number = (await change.connection.execute(last)).scalar_one() + 1
        values = {
            "number": number,
            "digest": dumped["digest"],
            "spec": dumped,
            "origin": origin,
            "updated_at": change.now,
        }
        if now is None:
            await change.connection.execute(insert(datasets).values(name=name, created_at=change.now, **values))
        else:
            await change.connection.execute(update(datasets).where(datasets.c.name == name).values(**values))
        await change.connection.execute(
            insert(dataset_revisions).values(
                name=name,
                number=number,
                digest=dumped["digest"],
                spec=dumped,
                principal=change.caller.name,
                at=change.now,
            )
        )
        await change.audit("dataset.put", name, number=number, digest=dumped["digest"])
        return {}

    async def delete(self, change: Change, name: str) -> None:
        """See `Kind.delete`: the name goes, its revisions stay."""
        statement = select(datasets.c.digest).where(datasets.c.name == name)
        digest = (await change.connection.execute(statement)).scalar_one_or_none()
        if digest is None:
            raise NotFound(f"There is no data set {name!r}.")
        users = await versions_of(change.connection, digest)
        if users:
            raise Conflict(
                f"The data set {name} is what {', '.join(users[:3])} {'was' if len(users) == 1 else 'were'} made or measured with: its record stays.",
                code="dataset_used",
            )
        await change.connection.execute(delete(datasets).where(datasets.c.name == name))
        await change.audit("dataset.delete", name, digest=digest)


async def versions_of(connection: AsyncConnection, digest: str) -> list[str]:
    """The versions (NAME:LABEL) that were trained or measured with the data of `digest`."""
    rows = await connection.execute(
        select(lineage_edges.c.model, lineage_edges.c.label)
        .where(lineage_edges.c.kind == "dataset", lineage_edges.c.target_digest == digest)
        .distinct()
        .order_by(lineage_edges.c.model, lineage_edges.c.label)
    )
    return [f"{row.model}:{row.label}" for row in rows]


async def find_digest(connection: AsyncConnection, name: str, digest: str | None) -> tuple[str, str]:
    """The name and digest of a registered data set, by its name (with the `digest` that is meant, else its newest), or by digest alone.

    Raises:
        NotFound: if it is not registered.
    """
    wanted = name if name.startswith("sha256:") else digest
    statement = select(dataset_revisions.c.name, dataset_revisions.c.digest).order_by(dataset_revisions.c.at.desc())
    if wanted is not None:
        statement = statement.where(dataset_revisions.c.digest == wanted)
    if not name.startswith("sha256:"):
        statement = statement.where(dataset_revisions.c.name == name)
        if wanted is None:
            statement = statement.join(datasets, datasets.c.name == dataset_revisions.c.name).where(
                dataset_revisions.c.number == datasets.c.number
            )
    row = (await connection.execute(statement.limit(1))).first()
    if row is None:
        what = short(name) if name.startswith("sha256:") else repr(name)
        raise NotFound(
            f"There is no data set {what}{f' of digest {short(digest)}' if digest else ''}.",
            hint="penstock datasets register NAME -f FILE registers one.",
        )
    return row.name, row.digest


async def read_custody(connection: AsyncConnection, digest: str) -> Custody:
    """The chain of custody of the data of `digest`, by the newest record of each link."""
    rows = await connection.execute(
        select(dataset_revisions).order_by(dataset_revisions.c.at, dataset_revisions.c.number)
    )
    return chain_of(digest, {row.digest: dataset_of(row) for row in rows})


def dataset_of(row: Any) -> DataSet:
    """The value of a row of `dataset_revisions`."""
    told = {key: value for key, value in row.spec.items() if value is not None}
    for field in ("custodians", "transformations"):
        told[field] = [{k: v for k, v in one.items() if v is not None} for one in told.get(field, ())]
    return msgspec.convert(
        {**told, "name": row.name, "number": row.number, "registered_by": row.principal, "registered_at": row.at},
        DataSet,
    )
