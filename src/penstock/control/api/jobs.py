"""Evaluations and builds as the API tells them: rows of work for examiners, with the same columns for whose and how far it is."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, Select, Table, select


def newest_jobs(
    table: Table, *, model: str | None, label: str | None, state: str | None, limit: int
) -> Select[tuple[Any, ...]]:
    """The newest `limit` rows of `table`; of one model, label or state, where that is given."""
    statement = select(table).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
    for column, value in ((table.c.model, model), (table.c.label, label), (table.c.state, state)):
        if value is not None:
            statement = statement.where(column == value)
    return statement


def told_job(table: Table, row: Row[Any], *, left_out: Collection[str] = ()) -> dict[str, Any]:
    """`row` by the names of its columns, without the examiner's lease and what is `left_out`."""
    hidden = {"holder", "lease_until", *left_out}
    return {name: row._mapping[name] for name in table.c.keys() if name not in hidden}  # noqa: SLF001, SIM118
