"""`penstock requests`: which requests there were, newest first, by whatever is known of them."""

import datetime as dt
from typing import Any, get_args

import click

from penstock.cli.session import Session, with_session
from penstock.cli.show import table, when
from penstock.core.exchange import Outcome

_MOST_PAGE = 500


class Moment(click.ParamType[float]):
    """Unix seconds, or a date and time in ISO 8601, UTC unless it says otherwise."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Unix seconds."""
        try:
            return float(value)
        except ValueError:
            pass
        try:
            found = dt.datetime.fromisoformat(value)
            return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time: give Unix seconds, or such as 2026-11-23T01:02.", param, ctx)


@click.command()
@click.option("--from", "start", type=Moment(), help="From then on.")
@click.option("--to", "end", type=Moment(), help="Before.")
@click.option("--tenant", metavar="NAME", help="Of this tenant.")
@click.option("--model", metavar="NAME", help="That asked for this model.")
@click.option("--route", metavar="NAME", help="That went by this route.")
@click.option("--experiment", metavar="NAME", help="In this experiment.")
@click.option("--arm", metavar="NAME", help="Of this arm.")
@click.option("--version", metavar="NAME:LABEL", help="Answered by this version.")
@click.option("--outcome", type=click.Choice(get_args(Outcome)), help="That ended so.")
@click.option("--status", type=click.IntRange(0, 999), help="With this HTTP status.")
@click.option("--error", metavar="CODE", help="With this error code.")
@click.option("--slower", "min_latency_ms", type=click.FloatRange(0), metavar="MS", help="That took so long at least.")
@click.option("--dearer", "min_cost_usd", type=click.FloatRange(0), metavar="USD", help="That cost so much at least.")
@click.option("--finding", metavar="RULE", help="In which this content rule found something; *: any.")
@click.option("--id", metavar="TEXT", help="With this in its id.")
@click.option("--before", metavar="NEXT", help="Go on where a page ended, with its `next`.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option(
    "--pages", type=click.IntRange(1), default=20, show_default=True, help="Most pages of the API to look through."
)
@with_session
def requests(session: Session, limit: int, pages: int, before: str | None, **wanted: Any) -> None:
    """Requests that were recorded, the newest first; all filters together. `penstock explain ID` tells one whole.

    Rare ones are found by the analytical store, wherever it holds what the index does. Where it does not, a page of the API looks through
    20,000 records, and --pages of them are asked for.
    """
    wanted["from"], wanted["to"] = wanted.pop("start"), wanted.pop("end")
    found: list[dict[str, Any]] = []
    through, looked_to = "index", None
    for _ in range(pages):
        page = session.api.get("/requests", limit=min(limit - len(found), _MOST_PAGE), before=before, **wanted)
        found += page["requests"]
        before, looked_to = page["next"], page["looked_to"]
        through = "store" if "store" in {through, page["through"]} else "index"
        if before is None or len(found) == limit:
            break
    document = {"requests": found, "next": before, "looked_to": looked_to, "through": through}
    session.answer(document, lambda: _show(session, document, whole=len(found) == limit))


def _show(session: Session, told: dict[str, Any], *, whole: bool) -> None:
    table(
        session.console,
        ("TIME", "REQUEST", "TENANT", "MODEL", "VERSION", "ARM", "OUTCOME", "MS", "TOKENS", "USD"),
        [_row(one) for one in told["requests"]],
        empty="None." if told["next"] is None else f"None back to {when(told['looked_to'])}.",
    )
    if told["next"] is not None:
        more = "There may be more" if whole else f"Looked through back to {when(told['looked_to'])}"
        click.echo(f"{more}: go on with --before {told['next']}", err=True)


def _row(one: dict[str, Any]) -> tuple[Any, ...]:
    return (
        when(one["at"]),
        one["id"],
        one["tenant"],
        one["model"],
        one["version"],
        f"{one['experiment']}/{one['arm']}" if one["experiment"] else None,
        f"{one['outcome']} {one['status'] or ''} {one['error']}".rstrip() if one["outcome"] != "ok" else "ok",
        round(one["phases"]["done"] / 1e6, 1),
        one["usage"]["prompt"] + one["usage"]["completion"],
        f"{one['cost_nanousd'] / 1e9:.6f}",
    )
