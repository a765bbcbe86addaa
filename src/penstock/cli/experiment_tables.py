"""What `penstock experiments status` tells of a bandit, a shadow and an interleaved experiment beside the rest."""

from typing import Any

from penstock.cli.session import Session
from penstock.cli.show import share, table


def show_strategy(session: Session, verdict: dict[str, Any]) -> None:
    """The tables that there is something for."""
    _table(
        session,
        ("ARM", "CONTEXT", "BEST WITH", "NEXT SHARE", "DIFFERENCE AT ONE LOOK"),
        [
            (
                one["arm"],
                one["context"] or "-",
                share(one["chance"]),
                share(one["share"]),
                _ends(one["lower"], one["upper"]),
            )
            for one in verdict.get("contenders", [])
        ],
    )
    _table(
        session,
        ("VOTES", "ARM", "FOR", "AGAINST", "TIES", "SHARE", "INTERVAL", "STRENGTH"),
        [
            (
                one["metric"],
                one["arm"],
                one["won"],
                one["lost"],
                one["ties"],
                share(one["share"]),
                f"{share(one['lower'])} to {share(one['upper'])}",
                "-" if one["strength"] is None else f"{one['strength']:+.3f}",
            )
            for one in verdict.get("votes", [])
        ],
    )
    _table(
        session,
        ("VERSION", "BY", "STRENGTH", "INTERVAL", "CERTAINLY BEATS"),
        [
            (
                one["arm"],
                one["metric"],
                "-" if one["strength"] is None else f"{one['strength']:+.3f}",
                _ends(one["lower"], one["upper"]),
                ", ".join(one["stronger_than"]) or "-",
            )
            for one in verdict.get("ranking", [])
        ],
    )
    _table(
        session,
        ("FORECAST OF AN A/B TEST", "ARM", "UNITS AN ARM", "DIFFERENCE", "95 % OF TESTS", "BETTER", "WORSE"),
        [
            (
                one["metric"],
                one["arm"],
                one["units"],
                f"{one['estimate']:+.4g}",
                _ends(one["lower"], one["upper"]),
                share(one["better"]),
                share(one["worse"]),
            )
            for one in verdict.get("forecasts", [])
        ],
    )


def _table(session: Session, heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    if rows:
        session.console.print()
        table(session.console, heads, rows, empty="")


def _ends(lower: float | None, upper: float | None) -> str:
    return "-" if lower is None or upper is None else f"{lower:+.4g} to {upper:+.4g}"
