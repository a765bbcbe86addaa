"""What was measured of a version, and what its gates said: read for cards and for the explanation of requests."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.registry.card_template import Result
from penstock.store.schema_gates import approvals, evaluations, judgements


async def read_results(connection: AsyncConnection, version: Any) -> tuple[Result, ...]:
    """The figures of the newest evaluation of `version` (a row) by each suite, of the whole suite."""
    rows = await connection.execute(
        select(evaluations)
        .where(evaluations.c.digest == version.digest, evaluations.c.kind == "suite", evaluations.c.state == "done")
        .order_by(evaluations.c.finished_at.desc())
    )
    found: dict[tuple[str, str], Result] = {}
    for row in rows:
        for figure in row.result.get("figures", ()):
            if figure.get("slice") or figure.get("value") is None:
                continue
            found.setdefault(
                (row.suite, figure["measure"]),
                Result(
                    metric=figure["measure"],
                    value=float(figure["value"]),
                    lower=figure.get("low"),
                    upper=figure.get("high"),
                    count=figure.get("items"),
                    dataset=row.suite,
                    source=row.id,
                ),
            )
    return tuple(found[key] for key in sorted(found))


async def read_judgement(connection: AsyncConnection, revision: str) -> dict[str, Any] | None:
    """What the gates said when the revision was made; None: its environment asked for nothing."""
    row = (await connection.execute(select(judgements).where(judgements.c.revision == revision))).one_or_none()
    if row is None:
        return None
    return {
        "policy_hash": row.policy_hash,
        "outcomes": row.outcomes,
        "overridden_by": row.overridden_by or None,
        "reason": row.reason,
        "at": row.at,
    }


async def read_approvals(
    connection: AsyncConnection, environment: str, digest: str, before: float
) -> list[dict[str, Any]]:
    """Who had approved of the version in the environment by then, and had not taken it back."""
    rows = await connection.execute(
        select(approvals)
        .where(approvals.c.environment == environment, approvals.c.digest == digest, approvals.c.at <= before)
        .order_by(approvals.c.at)
    )
    return [
        {
            "principal": row.principal,
            "person": row.person,
            "reason": row.reason,
            "at": row.at,
            "policy_hash": row.policy_hash,
        }
        for row in rows
        if row.withdrawn_at is None or row.withdrawn_at > before
    ]
