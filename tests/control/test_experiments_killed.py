"""Ingest and evaluator killed at random places: what is counted afterwards equals an undisturbed run exactly."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.experiments.life import experiment_entries
from penstock.control.experiments.store import load_statistics
from penstock.core.exchange import Record
from penstock.experiments.counted import Statistics
from penstock.experiments.design import parse_design
from penstock.experiments.verdict import judge
from penstock.store import schema_experiments as tables
from penstock.store.sql import Database, open_database
from tests.control.bed import T0, Bed
from tests.control.histories import EVERYTHING, history
from tests.databases import furnished

BATCH = 48
SPEC = EVERYTHING | {"guardrails": [{"metric": "latency_p95"}]}  # one that nothing trips: it must run to its end


class Killed(Exception):
    """The process is gone in the middle of what it did."""


@contextmanager
def killed_at(database: Database, statement: int) -> Iterator[None]:
    """Whatever runs within dies before its `statement`th SQL statement."""
    seen = 0

    def count(*_arguments: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == statement:
            raise Killed

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", count)


@contextmanager
def killed_after_commit(database: Database) -> Iterator[None]:
    """Whatever runs within dies when what it wrote is committed, before it can tell anybody."""
    write = database.write

    @asynccontextmanager
    async def committed_and_dead() -> AsyncIterator[AsyncConnection]:
        async with write() as connection:
            yield connection
        raise Killed

    database.write = committed_and_dead  # type: ignore[method-assign]
    try:
        yield
    finally:
        database.write = write  # type: ignore[method-assign]


def death(database: Database, rng: random.Random, statements: int) -> AbstractContextManager[None]:
    """Before one of the first `statements` SQL statements, or, in a fifth of all cases, right after the first commit."""
    if rng.random() < 0.2:
        return killed_after_commit(database)
    return killed_at(database, rng.randrange(1, statements))


async def deliver(bed: Bed, batch: list[Record]) -> None:
    """As a shipper does: who is told that another offset is committed goes on from there."""
    answer = await bed.send(batch)
    if answer.status_code == 409:
        bed.offsets["w1"] = answer.json()["offset"]
        if await _lacks(bed, batch):
            answer = await bed.send(batch)
            assert answer.status_code == 200
    else:
        assert answer.status_code == 200


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(furnished(tmp_path / "other.db"))
    yield database
    await database.close()


async def counted(bed: Bed) -> tuple[Statistics, bytes, list[dict[str, Any]], list[dict[str, Any]]]:
    async with bed.control.database.read() as connection:
        statistics = await load_statistics(connection, "e")
    verdict = msgspec.json.encode(judge(parse_design(SPEC), statistics, T0))
    units = sorted(await bed.table(tables.experiment_units), key=lambda row: str(row["unit"]))
    reasons = sorted(await bed.table(tables.ingest_counts), key=lambda row: str(row["reason"]))
    return statistics, verdict, units, reasons


async def fed(bed: Bed, kills: int) -> int:
    """All records, batch by batch, with the evaluator after each; `kills` times something dies, starts anew and is sent the same again."""
    await bed.prepare()
    await bed.begin(SPEC)
    async with bed.control.database.read() as connection:
        entry = (await experiment_entries(connection))["bot"]
    records: list[Record] = history(entry)
    rng = random.Random(kills)
    died = 0
    batches = range(0, len(records), BATCH)
    for number, begin in enumerate(batches):
        batch = records[begin : begin + BATCH]
        bed.now += 2
        sent = False
        while died < kills * (number + 1) // len(batches):
            if not sent and rng.random() < 0.7:
                try:
                    with death(bed.control.database, rng, 30):
                        await deliver(bed, batch)
                    sent = True  # it was through before
                except Killed:
                    died += 1
            else:
                bed.now += 0.001
                try:
                    with death(bed.control.database, rng, 8):
                        await bed.evaluator.round()
                except Killed:
                    died += 1
        if not sent:
            await deliver(bed, batch)
        bed.now += 1
        await bed.evaluator.round()
    return died


async def _lacks(bed: Bed, batch: list[Record]) -> bool:
    return getattr(batch[0], "id", "") not in {row["id"] for row in await bed.table(tables.exchanges)}


@pytest.mark.parametrize("kills", [100, pytest.param(1000, marks=pytest.mark.soak)])
async def test_kills_change_nothing(sqlite: Database, other: Database, tmp_path: Path, kills: int) -> None:
    calm, restless = Bed(sqlite, tmp_path), Bed(other, tmp_path)
    assert await fed(calm, 0) == 0
    died = await fed(restless, kills)
    assert died == kills
    one, two = await counted(calm), await counted(restless)
    assert one == two
    assert len(one[0].looks) == 3
    again = (await restless.call("GET", "/experiments/e/replay")).json()
    assert (again["equal"], again["differences"]) == (True, [])
    await calm.http.aclose()
    await restless.http.aclose()
