"""Charts as values: what the script draws, and the table of the same numbers for who has none."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from penstock.console import figures
from penstock.console.shapes import Overview


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line; `low` and `high` are its band."""

    name: str
    values: tuple[float | None, ...]
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """One chart: `data` for the script, `headings` and `rows` for the table."""

    id: str
    title: str
    data: dict[str, Any]
    headings: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""


def finite(values: Iterable[float | None]) -> tuple[float | None, ...]:
    """`values` with none in place of what is no number."""
    return tuple(value if value is not None and math.isfinite(value) else None for value in values)


def drawing(x: Sequence[float], lines: Sequence[Line], unit: str, **options: bool) -> dict[str, Any]:
    """What the script draws: `lines` over the moments `x`. Units: s, percent, usd, count. Options: bars, fill, zero."""
    return {"x": list(x), "lines": msgspec.to_builtins(lines), "unit": unit, **options}


def overview_charts(overview: Overview) -> list[Chart]:
    """The four charts of the overview: traffic, latency, first token, tokens with their cost."""
    points = overview.series
    x = [point.at for point in points]
    minute = 60 / (points[1].at - points[0].at if len(points) > 1 else overview.window_s)
    rate = tuple(point.requests * minute for point in points)
    errors = tuple(point.errors * minute for point in points)
    tokens = tuple(point.tokens * minute for point in points)
    moments = [figures.when(point.at) for point in points]
    charts = [
        Chart(
            id="c-requests",
            title="Requests",
            note="per minute",
            data=drawing(
                x, (Line(name="requests", values=rate), Line(name="errors", values=errors)), "count", fill=True
            ),
            headings=("Time", "Requests", "Errors"),
            rows=tuple(
                (moment, figures.number(point.requests), figures.number(point.errors))
                for moment, point in zip(moments, points, strict=True)
            ),
        )
    ]
    for id_, title, field, names in (
        ("c-latency", "Latency", "latency", ("p50", "p95", "p99")),
        ("c-first", "First token", "first_token", ("p50", "p95")),
    ):
        columns = [finite(getattr(point, f"{field}_{name}_s") for point in points) for name in names]
        lines = tuple(Line(name=name, values=values) for name, values in zip(names, columns, strict=True))
        charts.append(
            Chart(
                id=id_,
                title=title,
                data=drawing(x, lines, "s"),
                headings=("Time", *names),
                rows=tuple(
                    (moment, *(figures.seconds(value) for value in values))
                    for moment, *values in zip(moments, *columns, strict=True)
                ),
            )
        )
    charts.append(
        Chart(
            id="c-tokens",
            title="Tokens",
            note="per minute",
            data=drawing(x, (Line(name="tokens", values=tokens),), "count", fill=True),
            headings=("Time", "Tokens", "Cost"),
            rows=tuple(
                (moment, figures.number(point.tokens), figures.money(point.cost_usd))
                for moment, point in zip(moments, points, strict=True)
            ),
        )
    )
    return charts
