"""Lineage: which version came of which, and what it was measured on. Edges lead from a version to what it was made of, by digest."""

from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

Relation = Literal["fine_tuned_from", "quantised_from", "distilled_from", "merged_from", "trained_on", "evaluated_on"]
# Of builds that were made here: full precision is another form of the same numbers.
CONVERTED = "converted_from"
RELATIONS: tuple[Relation, ...] = get_args(Relation)
WORDS: dict[str, str] = {
    name: name.replace("fine_tuned", "fine-tuned").replace("_", " ") for name in (*RELATIONS, CONVERTED)
}
Kind = Literal["version", "dataset", "external", "build"]


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """`source`, a version, is `relation` `target`. Names are as they were at the commit; digests are what is meant.

    Attributes:
        source: NAME:LABEL, or NAME:LABEL/FOLDER of a build that was made of it.
        target: NAME:LABEL, a data set's name, or what stands elsewhere (`hf:org/name@revision`).
        target_digest: "" of what stands elsewhere without one.
    """

    source: str
    source_digest: str
    relation: Relation | Literal["converted_from"]
    kind: Kind
    target: str
    target_digest: str = ""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One thing of a graph; `depth` is 0 for the asked one, below 0 for what it came of, above for what came of it."""

    id: str
    kind: Kind
    digest: str
    depth: int


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """What a version came of, and what came of it."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def graph_around(name: str, digest: str, edges: Iterable[Edge], *, most: int = 200) -> Graph:
    """All that `name` (NAME:LABEL) came of, and all that came of it, each at its shortest distance; at most `most` nodes."""
    up: dict[str, list[Edge]] = {}
    down: dict[str, list[Edge]] = {}
    for edge in edges:
        up.setdefault(edge.source, []).append(edge)
        down.setdefault(edge.target, []).append(edge)
    nodes = {name: Node(id=name, kind="version", digest=digest, depth=0)}
    kept: list[Edge] = []
    for step, ways in ((-1, up), (1, down)):
        layer = [name]
        while layer and len(nodes) < most:
            following = []
            for here in layer:
                for edge in ways.get(here, ()):
                    if edge not in kept:
                        kept.append(edge)
                    other = edge.target if step < 0 else edge.source
                    if other in nodes:
                        continue
                    nodes[other] = Node(
                        id=other,
                        kind=edge.kind if step < 0 else _kind_of(other),
                        digest=edge.target_digest if step < 0 else edge.source_digest,
                        depth=nodes[here].depth + step,
                    )
                    following.append(other)
            layer = following
    return Graph(
        nodes=tuple(sorted(nodes.values(), key=lambda node: (node.depth, node.id))),
        edges=tuple(edge for edge in kept if edge.source in nodes and edge.target in nodes),
    )


def _kind_of(source: str) -> Kind:
    return "build" if "/" in source else "version"
