"""How far an evaluator has come and what it has found, in the tables; moved in the transaction that its scores are ingested in."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.evaluators.page import first_sequence
from penstock.control.evaluators.work import Seat, Tally
from penstock.experiments.design import parse_design
from penstock.store.schema_evaluators import evaluator_counts, evaluator_offsets, evaluator_usage, evaluator_waiting
from penstock.store.schema_experiments import exchanges, experiments

UNUSED: dict[str, Any] = {
    "calls": 0,
    "errors": 0,
    "refused": 0,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "cost_usd": 0.0,
}


class Moved(Exception):
    """Somebody else has moved the offset meanwhile: nothing of this is to be kept."""


async def offset_of(connection: AsyncConnection, name: str) -> int | None:
    """The last ingest sequence that the evaluator has looked at; None: it has not begun."""
    mine = select(evaluator_offsets.c.sequence).where(evaluator_offsets.c.evaluator == name)
    return (await connection.execute(mine)).scalar_one_or_none()


async def begin(connection: AsyncConnection, name: str, since: float, now: float) -> int:
    """Give a new evaluator its offset, so that it looks back to `since` (Unix seconds)."""
    found = await offset_of(connection, name)
    if found is not None:
        return found
    first = await first_sequence(connection, since)
    await connection.execute(insert(evaluator_offsets).values(evaluator=name, sequence=first, at=now))
    return first


async def move(connection: AsyncConnection, name: str, old: int, new: int, now: float) -> None:
    """Move the offset from `old` to `new`.

    Raises:
        Moved: if it is not at `old`.
    """
    mine = (evaluator_offsets.c.evaluator == name) & (evaluator_offsets.c.sequence == old)
    moved = await connection.execute(update(evaluator_offsets).where(mine).values(sequence=new, at=now))
    if moved.rowcount != 1:
        raise Moved


async def add_tally(connection: AsyncConnection, name: str, tally: Tally) -> None:
    """Add what became of the answers of a page."""
    table = evaluator_counts
    rows = await connection.execute(select(table).where(table.c.evaluator == name))
    known = {(row.experiment, row.arm, row.result) for row in rows}
    for key, count in sorted(tally.items()):
        experiment, arm, result = key
        if not count:
            continue
        if key in known:
            mine = (table.c.evaluator == name) & (table.c.experiment == experiment) & (table.c.arm == arm)
            await connection.execute(
                update(table).where(mine, table.c.result == result).values(count=table.c.count + count)
            )
        else:
            await connection.execute(
                insert(table).values(evaluator=name, experiment=experiment, arm=arm, result=result, count=count)
            )


async def waiting_of(connection: AsyncConnection, name: str, marks: Iterable[str]) -> dict[Seat, str]:
    """What waits for an answer of another arm to one of these questions."""
    table = evaluator_waiting
    rows = await connection.execute(
        select(table).where(table.c.evaluator == name, table.c.question.in_(sorted(set(marks))))
    )
    return {(row.experiment, row.epoch, row.question, row.arm): row.request for row in rows}


async def seat(connection: AsyncConnection, name: str, seats: Mapping[Seat, str | None], now: float) -> None:
    """Let answers wait, or no more."""
    table = evaluator_waiting
    for (experiment, epoch, question, arm), request in sorted(seats.items()):
        mine = (table.c.evaluator == name) & (table.c.experiment == experiment) & (table.c.epoch == epoch)
        await connection.execute(delete(table).where(mine, table.c.question == question, table.c.arm == arm))
        if request is not None:
            await connection.execute(
                insert(table).values(
                    evaluator=name, experiment=experiment, epoch=epoch, question=question, arm=arm, request=request, at=now
                )
            )  # fmt: skip


async def unseat_before(connection: AsyncConnection, name: str, at: float) -> None:
    """Let go of what has waited since before `at`."""
    table = evaluator_waiting
    await connection.execute(delete(table).where(table.c.evaluator == name, table.c.at < at))


async def arms_of(connection: AsyncConnection, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The arms of these experiments."""
    rows = await connection.execute(
        select(experiments.c.name, experiments.c.spec).where(experiments.c.name.in_(sorted(set(names))))
    )
    return {row.name: tuple(arm.name for arm in parse_design(row.spec).arms) for row in rows}


async def counts_of(
    connection: AsyncConnection, *, evaluator: str | None = None, experiment: str | None = None
) -> dict[str, dict[tuple[str, str], dict[str, int]]]:
    """What became of the drawn answers: by evaluator, by experiment and arm, by result."""
    table = evaluator_counts
    statement = select(table).order_by(table.c.evaluator, table.c.experiment, table.c.arm, table.c.result)
    if evaluator is not None:
        statement = statement.where(table.c.evaluator == evaluator)
    if experiment is not None:
        statement = statement.where(table.c.experiment == experiment)
    found: dict[str, dict[tuple[str, str], dict[str, int]]] = {}
    for row in (await connection.execute(statement)).mappings():
        by_arm = found.setdefault(row["evaluator"], {}).setdefault((row["experiment"], row["arm"]), {})
        by_arm[row["result"]] = row["count"]
    return found


async def behind_of(connection: AsyncConnection, name: str, now: float) -> float:
    """How old the oldest request is that the evaluator has not looked at, in seconds; 0 if there is none, or it has not begun."""
    offset = await offset_of(connection, name)
    if offset is None:
        return 0.0
    first = select(exchanges.c.at).where(exchanges.c.sequence > offset).order_by(exchanges.c.sequence).limit(1)
    at = (await connection.execute(first)).scalar_one_or_none()
    return 0.0 if at is None else max(0.0, now - at)


async def used_by(connection: AsyncConnection, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Calls (those that the gateway refused or that failed among them), tokens and cost of each evaluator that has asked a model, ever."""
    rows = await connection.execute(select(evaluator_usage).where(evaluator_usage.c.evaluator.in_(sorted(names))))
    found = {}
    for row in rows.mappings():
        used = dict(row)
        found[used.pop("evaluator")] = used | {"cost_usd": used.pop("cost_nanousd") / 1e9}
    return found
