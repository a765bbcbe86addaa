"""Lineage: what a version's metadata say that it was made of, resolved to digests at its commit, and the graph around a version."""

from typing import Any

from sqlalchemy import insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.specs.version import VersionMetadata
from penstock.control.versions.datasets import find_digest
from penstock.control.versions.find import find_version
from penstock.core.errors import BadRequest, NotFound
from penstock.core.references import parse_reference
from penstock.registry.lineage import Edge, Graph, graph_around
from penstock.store.schema import builds, versions
from penstock.store.schema_versions import lineage_edges

_LAYERS = 12


async def resolve_edges(connection: AsyncConnection, told: VersionMetadata) -> list[dict[str, Any]]:
    """The edges of a version that is about to be committed, by digest.

    Raises:
        BadRequest: its `param` is the path of a reference to what is not registered.
    """
    found: list[dict[str, Any]] = []
    for index, one in enumerate(told.lineage):
        where = f"metadata.lineage.{index}"
        if one.version is not None:
            found.append({"relation": one.relation, **await _version(connection, one.version, f"{where}.version")})
        elif one.dataset is not None:
            target, digest = await _dataset(connection, one.dataset, one.digest, f"{where}.dataset")
            found.append({"relation": one.relation, "kind": "dataset", "target": target, "target_digest": digest})
        else:
            found.append(
                {
                    "relation": one.relation,
                    "kind": "external",
                    "target": str(one.external)[:512],
                    "target_digest": one.digest or "",
                }
            )
    for index, use in enumerate(told.training.data):
        target, digest = await _dataset(connection, use.dataset, use.digest, f"metadata.training.data.{index}.dataset")
        edge = {"relation": "trained_on", "kind": "dataset", "target": target, "target_digest": digest}
        if edge not in found:
            found.append(edge)
    return found


async def write_edges(change: Change, model: str, label: str, edges: list[dict[str, Any]]) -> None:
    """Keep the edges of a version that has just been committed."""
    for position, edge in enumerate(edges):
        await change.connection.execute(
            insert(lineage_edges).values(model=model, label=label, position=position, **edge)
        )


async def _version(connection: AsyncConnection, text: str, where: str) -> dict[str, Any]:
    try:
        row = await find_version(connection, parse_reference(text))
    except NotFound:
        raise BadRequest(f"{where}: there is no version {text}.", param=where, code="unknown_reference") from None
    return {"kind": "version", "target": f"{row.model}:{row.label}", "target_digest": row.digest}


async def _dataset(connection: AsyncConnection, name: str, digest: str | None, where: str) -> tuple[str, str]:
    try:
        return await find_digest(connection, name, digest)
    except NotFound as error:
        raise BadRequest(f"{where}: {error.message}", param=where, code="unknown_reference", hint=error.hint) from None


async def read_graph(connection: AsyncConnection, version: Any) -> Graph:
    """The graph around `version` (a row): what it came of and what came of it, some layers each way."""
    name = f"{version.model}:{version.label}"
    edges: dict[tuple[str, int], Edge] = {}
    for up in (True, False):
        layer = {name}
        seen = set(layer)
        for _ in range(_LAYERS):
            rows = await _edges(connection, layer, up=up)
            for row in rows:
                edges[f"{row.model}:{row.label}", row.position] = edge_of(row)
            names = {
                row.target if up else f"{row.model}:{row.label}" for row in rows if not up or row.kind == "version"
            }
            layer = names - seen
            seen |= layer
            if not layer:
                break
    return graph_around(name, version.digest, [*edges.values(), *await _made(connection, version)])


async def _made(connection: AsyncConnection, version: Any) -> list[Edge]:
    """The builds that were made of the version."""
    mine = (builds.c.model == version.model) & (builds.c.label == version.label)
    rows = await connection.execute(select(builds).where(mine, builds.c.manifest.is_not(None)))
    return [
        Edge(
            source=f"{row.model}:{row.label}/{row.folder}",
            source_digest=row.digest,
            relation="converted_from" if row.precision == "fp32" else "quantised_from",
            kind="version",
            target=f"{row.model}:{row.label}",
            target_digest=version.digest,
        )
        for row in rows
    ]


async def _edges(connection: AsyncConnection, names: set[str], *, up: bool) -> list[Any]:
    statement = select(lineage_edges, versions.c.digest.label("source_digest")).join_from(
        lineage_edges,
        versions,
        (lineage_edges.c.model == versions.c.model) & (lineage_edges.c.label == versions.c.label),
    )
    if up:
        split = [name.partition(":") for name in sorted(names)]
        statement = statement.where(
            or_(*((lineage_edges.c.model == model) & (lineage_edges.c.label == label) for model, _, label in split))
        )
    else:
        statement = statement.where(lineage_edges.c.kind == "version", lineage_edges.c.target.in_(sorted(names)))
    return list((await connection.execute(statement)).all())


def edge_of(row: Any) -> Edge:
    """The value of a row of `lineage_edges` that carries `source_digest`."""
    return Edge(
        source=f"{row.model}:{row.label}",
        source_digest=row.source_digest,
        relation=row.relation,
        kind=row.kind,
        target=row.target,
        target_digest=row.target_digest,
    )
