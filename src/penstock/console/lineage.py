"""The graph of a lineage as boxes and lines: columns by distance, ancestors to the left. Links and text alone, so that it needs no script."""

from urllib.parse import quote

import msgspec

from penstock.console.shapes_versions import Graph, Node

WIDTH, HEIGHT, GAP_X, GAP_Y = 200, 44, 110, 16
_LONGEST = 28


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """One node: its place, its text, where it leads."""

    x: int
    y: int
    text: str
    whole: str
    kind: str
    here: bool
    href: str | None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One edge, from what something came of to what came of it, and the place of its words."""

    x1: int
    y1: int
    x2: int
    y2: int
    words: str
    text_x: int
    text_y: int


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, and its size."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


def draw(graph: Graph) -> Drawing | None:
    """The drawing of `graph`; None if there is nothing but the version itself."""
    if not graph.edges:
        return None
    columns: dict[int, list[Node]] = {}
    for node in graph.nodes:
        columns.setdefault(node.depth, []).append(node)
    first = min(columns)
    tallest = max(len(column) for column in columns.values())
    places: dict[str, tuple[int, int]] = {}
    for depth, column in columns.items():
        above = (tallest - len(column)) * (HEIGHT + GAP_Y) // 2
        for row, node in enumerate(sorted(column, key=lambda one: one.id)):
            places[node.id] = ((depth - first) * (WIDTH + GAP_X), above + row * (HEIGHT + GAP_Y))
    boxes = tuple(
        Box(
            x=places[node.id][0],
            y=places[node.id][1],
            text=node.id if len(node.id) <= _LONGEST else f"{node.id[: _LONGEST - 1]}…",
            whole=node.id,
            kind=node.kind,
            here=node.depth == 0,
            href=_href(node),
        )
        for node in graph.nodes
    )
    lines = []
    for edge in graph.edges:
        (x1, y1), (x2, y2) = places[edge.target], places[edge.source]
        left, right = (x1 + WIDTH, x2) if x1 < x2 else (x1, x2 + WIDTH)
        middle = HEIGHT // 2
        lines.append(
            Line(
                x1=left,
                y1=y1 + middle,
                x2=right,
                y2=y2 + middle,
                words=edge.relation.replace("_", " "),
                text_x=(left + right) // 2,
                text_y=(y1 + y2) // 2 + middle - 4,
            )
        )
    span = max(columns) - first + 1
    return Drawing(
        width=span * (WIDTH + GAP_X) - GAP_X,
        height=tallest * (HEIGHT + GAP_Y) - GAP_Y,
        boxes=boxes,
        lines=tuple(lines),
    )


def _href(node: Node) -> str | None:
    if node.kind == "dataset":
        return f"/datasets/{quote(node.id, safe='')}"
    model, _, label = node.id.partition(":")
    return f"/models/{quote(model, safe='')}/{quote(label, safe='')}" if node.kind == "version" and label else None
