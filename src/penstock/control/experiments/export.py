"""An experiment to take away: all that was registered, counted and decided, as one document or as tables of rows."""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select

from penstock.control.context import Control
from penstock.core.errors import BadRequest
from penstock.store.schema_experiments import experiment_epochs, experiment_points

COLUMNS: dict[str, tuple[str, ...]] = {
    "comparisons": (
        "metric", "arm", "control", "primary", "n", "control_n", "value", "control_value", "estimate", "lower", "upper", "state", "finding",
    ),
    "points": ("metric", "arm", "at", "n", "value", "estimate", "lower", "upper"),
    "arms": ("arm", "share", "units", "requests"),
    "guardrails": ("metric", "arm", "evidence", "limit", "gauge", "tripped"),
    "epochs": ("epoch", "started_at", "arm", "share"),
}  # fmt: skip


async def exported(control: Control, told: Mapping[str, Any]) -> dict[str, Any]:
    """The whole of it: what the API tells of the experiment, and all its estimates over time."""
    name = told["name"]
    async with control.database.read() as connection:
        points = await connection.execute(
            select(experiment_points)
            .where(experiment_points.c.experiment == name)
            .order_by(experiment_points.c.metric, experiment_points.c.at, experiment_points.c.arm)
        )
        epochs = await connection.execute(
            select(experiment_epochs).where(experiment_epochs.c.experiment == name).order_by(experiment_epochs.c.epoch)
        )
        return {
            **told,
            "exported_at": control.clock(),
            "points": [{column: row[column] for column in COLUMNS["points"]} for row in points.mappings()],
            "epochs": [
                {"epoch": row.epoch, "shares": dict(row.shares), "started_at": row.started_at} for row in epochs
            ],
        }


def as_csv(document: Mapping[str, Any], table: str) -> str:
    """One table of an exported document, with a heading; the experiment's name stands in each row.

    Raises:
        BadRequest: if there is no such table.
    """
    if table not in COLUMNS:
        raise BadRequest(f"There is no table {table!r}: use one of {', '.join(COLUMNS)}.", param="table")
    verdict = document.get("verdict") or {}
    rows: Iterable[Mapping[str, Any]]
    if table == "points":
        rows = document["points"]
    elif table == "epochs":
        rows = [
            {"epoch": one["epoch"], "started_at": one["started_at"], "arm": arm, "share": share}
            for one in document["epochs"]
            for arm, share in one["shares"].items()
        ]
    else:
        rows = verdict.get(table, ())
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(("experiment", *COLUMNS[table]))
    for row in rows:
        writer.writerow((document["name"], *(_cell(row.get(column)) for column in COLUMNS[table])))
    return written.getvalue()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is quoted."""
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@"}:
        return f"'{value}"
    return "" if value is None else value
