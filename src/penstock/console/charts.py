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
    points = overview.points
    x = [point.at for point in points]
    minute = 60 / overview.bucket_s
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
    for id_, title, quantiles in (
        ("c-latency", "Latency", [point.latency_s for point in points]),
        ("c-first", "First token", [point.first_token_s for point in points]),
    ):
        lines = tuple(
            Line(name=name, values=finite(getattr(q, name) for q in quantiles)) for name in ("p50", "p95", "p99")
        )
        charts.append(
            Chart(
                id=id_,
                title=title,
                data=drawing(x, lines, "s"),
                headings=("Time", "p50", "p95", "p99"),
                rows=tuple(
                    (moment, figures.seconds(q.p50), figures.seconds(q.p95), figures.seconds(q.p99))
                    for moment, q in zip(moments, quantiles, strict=True)
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
