"""What ingest could not count: how often, and why; nothing that was dropped is silent."""

from sqlalchemy import insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.store.schema_experiments import ingest_counts, observations

REASONS = {
    "repeated_exchange": "an exchange that had come before",
    "repeated_observation": "an observation whose (tenant, id) had come before",
    "unknown_experiment": "an exchange of an experiment, arm or epoch that is not counted (any more)",
    "arm_changed": "an exchange whose unit has been in another arm in the same epoch",
    "refused_number": "an observation with a number that is NaN, infinite or beyond a million",
    "repeated_word": "a second success, rating, report or conversion for the same request",
    "foreign": "an observation about an exchange of another tenant",
    "unattributed": "an observation whose exchange never came",
    "unknown_choice": "a preference for a choice that its answer did not have, or about an answer that was none of two",
    "event_without_value": "an event without a value, or with one that is no measurement, of which a metric needs the value",
}
PENDING_S = 900.0  # how long an observation waits for its exchange


async def add_counts(connection: AsyncConnection, counts: dict[str, int]) -> None:
    """Add to the counts of what was not counted."""
    for reason, count in sorted(counts.items()):
        changed = await connection.execute(
            update(ingest_counts).where(ingest_counts.c.reason == reason).values(count=ingest_counts.c.count + count)
        )
        if changed.rowcount == 0:
            await connection.execute(insert(ingest_counts).values(reason=reason, count=count))


async def settle_pending(connection: AsyncConnection, now: float) -> int:
    """Give up on observations whose exchange has not come for `PENDING_S`; how many there were."""
    late = await connection.execute(
        select(observations.c.tenant, observations.c.id)
        .where(observations.c.state == "pending", observations.c.received < now - PENDING_S)
        .limit(500)
    )
    names = [(row.tenant, row.id) for row in late]
    if names:
        await connection.execute(
            update(observations)
            .where(tuple_(observations.c.tenant, observations.c.id).in_(names))
            .values(state="unattributed")
        )
        await add_counts(connection, {"unattributed": len(names)})
    return len(names)
