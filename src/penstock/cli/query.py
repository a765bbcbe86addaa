"""`penstock query`: SQL over the analytical store, of this machine or of a control plane."""

import asyncio
from typing import Any

import click

from penstock.cli.session import Session, with_session
from penstock.cli.show import table
from penstock.compose.settings import analytics_folder


@click.command()
@click.argument("sql", required=False)
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Most rows.")
@click.option("--named", is_flag=True, help="Tell the queries that have names.")
@with_session
def query(session: Session, sql: str | None, limit: int, named: bool) -> None:
    """Ask the tables `exchanges` and `observations` with one SELECT, or with a query that has a name: @cost.

    Without --url, the store in the data folder is read, and nothing has to run. `DESCRIBE exchanges` tells the columns.
    """
    from penstock.journal.analytics.named import NAMED

    if named or sql is None:
        if not named:
            raise click.UsageError("Give a SELECT, or @NAME; --named tells the names.")
        _names(session, [{"name": name, "help": one.help, "sql": one.sql} for name, one in NAMED.items()])
        return
    here = analytics_folder(session.settings)
    if session.settings.url or not here.is_dir():
        told = session.api.send("POST", "/query", {"sql": sql, "limit": limit})
    else:
        told = _here(session, sql, limit)
    session.answer(told, lambda: _show(session, told))


def _here(session: Session, sql: str, limit: int) -> dict[str, Any]:
    from penstock.journal.analytics.named import sql_of
    from penstock.journal.analytics.query import Bounds, run_query, told

    settings = session.settings.analytics
    bounds = Bounds(rows=min(limit, settings.query_rows), seconds=settings.query_s, memory_mb=settings.query_memory_mb)
    return told(asyncio.run(run_query(analytics_folder(session.settings), sql_of(sql), bounds=bounds)))


def _names(session: Session, found: list[dict[str, str]]) -> None:
    session.answer(
        {"queries": found},
        lambda: table(
            session.console, ("NAME", "TELLS"), [(f"@{one['name']}", one["help"]) for one in found], empty="None."
        ),
    )


def _show(session: Session, told: dict[str, Any]) -> None:
    table(session.console, [one["name"] for one in told["columns"]], told["rows"], empty="No rows.")
    if told["cut"]:
        click.echo(f"The first {len(told['rows'])} rows; there are more.", err=True)
