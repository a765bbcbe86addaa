"""Ingest: exactly once, in one transaction, with a defined outcome for everything odd."""

import asyncio
import math
import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update

from penstock.control.ingest.counts import PENDING_S, settle_pending
from penstock.core.exchange import Exchange, Observation, Opened, Phases, Record
from penstock.store import schema_experiments as tables
from penstock.store.schema_drift import drift_groups
from penstock.store.sql import Database, open_database
from tests.control.bed import AB, T0, Bed, assigned, exchange, feedback
from tests.control.histories import entry_of
from tests.databases import furnished


async def counts(bed: Bed) -> dict[str, int]:
    return {row["reason"]: row["count"] for row in await bed.table(tables.ingest_counts)}


async def everything(bed: Bed) -> dict[str, Any]:
    """All that is derived from records, without when it was."""
    found: dict[str, Any] = {}
    for table in (
        tables.exchanges,
        tables.observations,
        tables.usage_minute,
        tables.experiment_statistics,
        tables.experiment_units,
        tables.experiment_guardrails,
        tables.ingest_counts,
        drift_groups,
    ):
        rows = [{k: v for k, v in row.items() if k != "sequence"} for row in await bed.table(table)]
        found[table.name] = sorted(rows, key=repr)
    return found


async def test_a_batch_counts_once_however_often_it_is_sent(both: Bed) -> None:
    await both.begin(AB)
    batch: list[Record] = [*assigned(await entry_of(both), range(50), T0), *(feedback(n) for n in range(50))]
    assert (await both.send(batch)).status_code == 200
    before = await everything(both)
    again = await both.send(batch, start_at=64)
    assert again.status_code == 409
    assert again.json() == {"segment": 1, "offset": both.offsets["w1"]}
    assert await everything(both) == before
    # The same records from another place of the journal are known by their ids.
    assert (await both.send(batch, source="w2")).status_code == 200
    assert (await counts(both)) == {"repeated_exchange": 50, "repeated_observation": 50}
    assert (await everything(both))["experiment_statistics"] == before["experiment_statistics"]


async def test_sequences_follow_the_order_of_records_and_offsets_are_told(both: Bed) -> None:
    await both.send([exchange(1), exchange(2)])
    await both.send([exchange(3), feedback(3)], source="w2")
    await both.send([exchange(4)])
    rows = {row["id"]: row["sequence"] for row in await both.table(tables.exchanges)}
    assert rows == {"req_000001": 1, "req_000002": 2, "req_000003": 3, "req_000004": 5}
    told = await both.http.get("/internal/v1/ingest/offsets", headers={"authorization": "Bearer service"})
    assert told.json() == {name: {"segment": 1, "offset": offset} for name, offset in both.offsets.items()}


async def test_a_later_segment_goes_on_and_an_earlier_place_does_not(bed: Bed) -> None:
    await bed.send([exchange(1)])
    assert (await bed.send([exchange(2)], start_at=64, segment=2)).status_code == 200
    assert (await bed.send([exchange(3)], start_at=64, segment=1)).status_code == 409


async def test_who_has_no_token_or_sends_garbage_is_refused(bed: Bed) -> None:
    assert (await bed.send([exchange(1)], token="wrong")).status_code == 401
    damaged = await bed.http.post(
        "/internal/v1/ingest",
        params={"source": "w", "segment": 1, "start": 0, "end": 100},
        content=b"\x05\x00\x00\x00garbage and more",
        headers={"authorization": "Bearer service"},
    )
    assert damaged.status_code == 400
    assert damaged.json()["error"]["code"] == "damaged_frame"
    backwards = await bed.http.post(
        "/internal/v1/ingest",
        params={"source": "w", "segment": 1, "start": 9, "end": 3},
        content=b"",
        headers={"authorization": "Bearer service"},
    )
    assert backwards.status_code == 400
    assert await bed.table(tables.exchanges) == []


async def test_opening_records_are_taken_in_and_count_nothing(bed: Bed) -> None:
    assert (await bed.send([Opened(exchange=exchange(1))])).status_code == 200
    assert await bed.table(tables.exchanges) == []


async def test_feedback_may_come_before_its_exchange(both: Bed) -> None:
    await both.begin(AB)
    shown = assigned(await entry_of(both), range(40), T0)
    await both.send([feedback(n, success=n % 2 == 0) for n in range(40)])
    assert {row["state"] for row in await both.table(tables.observations)} == {"pending"}
    await both.send(shown)
    assert {row["state"] for row in await both.table(tables.observations)} == {"attributed"}
    early = (await everything(both))["experiment_statistics"]
    success = [row for row in early if row["metric"] == "success"]
    assert sum(int(row["moments"].strip("[]").split(",")[0]) for row in success) == 40


async def test_what_waits_too_long_is_given_up_and_counted(both: Bed) -> None:
    await both.send([feedback(n) for n in range(5)])
    async with both.control.database.write() as connection:
        assert await settle_pending(connection, T0 + PENDING_S - 1) == 0
        assert await settle_pending(connection, T0 + PENDING_S + 10) == 5
    assert await counts(both) == {"unattributed": 5}
    await both.send([exchange(n) for n in range(5)])
    assert {row["state"] for row in await both.table(tables.observations)} == {"unattributed"}


async def test_each_odd_observation_has_its_outcome(both: Bed) -> None:
    await both.begin(AB)
    await both.send(assigned(await entry_of(both), range(4), T0))
    odd: list[Record] = [
        feedback(0, id="foreign", tenant="b"),
        feedback(1, id="first", success=True),
        feedback(1, id="second", success=False),
        feedback(2, id="nan", success=None, rating=math.nan),
        feedback(2, id="huge", success=None, rating=1e300),
        feedback(2, id="negative", success=None, rating=-1.0),
        feedback(99, id="unknown"),
        feedback(3, id="nul\0", success=None, text="x"),
        feedback(3, id="long" * 200, success=None),
        Observation(id="view", at=T0, received=T0, kind="event", tenant="a", name="page_view"),
    ]
    assert (await both.send(odd)).status_code == 200
    states = {row["id"]: row["state"] for row in await both.table(tables.observations)}
    assert states == {
        "foreign": "foreign",
        "first": "attributed",
        "second": "attributed",
        "nan": "attributed",
        "huge": "attributed",
        "negative": "attributed",
        "unknown": "pending",
        "nul\ufffd": "attributed",
        "long" * 200: "attributed",
        "view": "kept",
    }
    assert await counts(both) == {"foreign": 1, "refused_number": 2, "repeated_word": 1}
    rating = [r for r in (await everything(both))["experiment_statistics"] if r["metric"] == "rating"]
    assert [row["moments"] for row in rating] == ["[1,-1000000,1,1000000000000,1,-1000000]"]
    # The same idempotency id of another tenant is another observation.
    await both.send([feedback(0, id="first", tenant="b")])
    assert len(await both.table(tables.observations)) == 11


async def test_conversions_of_users_count_once_a_user_and_after_the_first_request(both: Bed) -> None:
    await both.begin(AB)
    await both.send(assigned(await entry_of(both), range(6), T0))

    def conversion(name: str, user: str, at: float, tenant: str = "a") -> Observation:
        return Observation(
            id=name, at=at, received=at, kind="event", name="conversion", tenant=tenant, user=user, value=3.0
        )

    await both.send(
        [
            conversion("1", "u1", T0 + 5),
            conversion("2", "u1", T0 + 6),
            conversion("3", "u2", T0 - 5),
            conversion("4", "u3", T0 + 5, tenant="b"),
            conversion("5", "nobody", T0 + 5),
        ]
    )
    rows = [r for r in (await everything(both))["experiment_statistics"] if r["metric"] == "conversion"]
    moments = [[int(x) for x in row["moments"].strip("[]").split(",")] for row in rows]
    assert (sum(m[0] for m in moments), sum(m[1] for m in moments)) == (6, 1)
    states = {row["id"]: row["state"] for row in await both.table(tables.observations)}
    assert states == {"1": "attributed", "2": "attributed", "3": "kept", "4": "kept", "5": "kept"}


async def test_what_no_experiment_counts_is_told_apart(both: Bed) -> None:
    await both.begin(AB)
    entry = await entry_of(both)
    shown = assigned(entry, range(3), T0)
    other_arm = {"control": "treatment", "treatment": "control"}
    batch: list[Record] = [
        shown[0],
        exchange(10, experiment="gone", arm="control", epoch=1),
        exchange(11, experiment="e", arm="nobody", epoch=1, unit="x"),
        exchange(12, experiment="e", arm="control", epoch=9, unit="y"),
        exchange(13, experiment="e", arm="control", epoch=0, unit="z"),  # lapsed: not part of the comparison
        exchange(14, experiment="e", arm=other_arm[shown[0].arm], epoch=1, unit=shown[0].unit),
    ]
    await both.send(batch)
    assert await counts(both) == {"unknown_experiment": 3, "arm_changed": 1}
    assert len(await both.table(tables.experiment_units)) == 1
    assert len(await both.table(tables.exchanges)) == 6


async def test_batches_of_any_size_give_the_same_statistics(sqlite: Database, tmp_path: Path) -> None:
    rng = random.Random(3)
    results = []
    entry = None
    for size in (10_000, 1, 17):
        database = await open_database(furnished(tmp_path / f"{size}.db"))
        both = Bed(database, tmp_path)
        await both.prepare()
        await both.begin(AB | {"guardrails": [{"metric": "error_rate"}, {"metric": "latency_p95"}]})
        entry = entry or await entry_of(both)
        rng.seed(5)
        records: list[Record] = []
        for n, one in enumerate(assigned(entry, range(150), T0)):
            took = int(rng.lognormvariate(0, 0.5) * 1e8)
            shown = {field: getattr(one, field) for field in one.__struct_fields__}
            shown |= {
                "user": f"u{n % 60}",
                "phases": Phases(1, 2, 3, took // 3, took, took),
                "outcome": "error" if rng.random() < 0.1 else "ok",
                "unit": one.unit if n < 60 else f"u{n % 60}",
                "arm": one.arm
                if n < 60
                else next(r.arm for r in records if isinstance(r, Exchange) and r.unit == f"u{n % 60}"),
            }
            records.append(Exchange(**shown))
            said = rng.randrange(150)
            records.append(feedback(said, id=f"fb-{n}", success=rng.random() < 0.6))
        for begin in range(0, len(records), size):
            assert (await both.send(records[begin : begin + size])).status_code == 200
        found = await everything(both)
        results.append({name: found[name] for name in found})
        await both.http.aclose()
        await database.close()
    assert results[0] == results[1] == results[2]


async def test_a_crash_in_the_middle_leaves_nothing_and_the_same_batch_counts_after_it(bed: Bed) -> None:
    await bed.begin(AB)
    entry = await entry_of(bed)
    first, second = assigned(entry, range(30), T0), assigned(entry, range(30, 60), T0)
    await bed.send(first)
    before = await everything(bed)
    statements = 0

    for killed_at in range(1, 14, 3):
        statements = 0

        def kill(*_arguments: Any, at: int = killed_at) -> None:
            nonlocal statements
            statements += 1
            if statements == at:
                raise RuntimeError("killed")

        engine = bed.control.database.engine.sync_engine
        event.listen(engine, "before_cursor_execute", kill)
        try:
            with pytest.raises(RuntimeError, match="killed"):
                await bed.send(second)
        finally:
            event.remove(engine, "before_cursor_execute", kill)
        assert await everything(bed) == before
    assert (await bed.send(second)).status_code == 200
    after = await everything(bed)
    assert len(after["exchanges"]) == 60


async def test_sources_at_once_are_all_counted(both: Bed) -> None:
    await both.begin(AB)
    shown = assigned(await entry_of(both), range(120), T0)
    answers = await asyncio.gather(
        *(both.send(shown[n * 30 : n * 30 + 30], source=f"w{n}", start_at=64) for n in range(4))
    )
    assert [answer.status_code for answer in answers] == [200] * 4
    sequences = sorted(row["sequence"] for row in await both.table(tables.exchanges))
    assert sequences == list(range(1, 121))
    usage = await both.table(tables.usage_minute)
    assert sum(row["requests"] for row in usage) == 120
    units = [r for r in await both.table(tables.experiment_statistics) if r["metric"] == "conversion"]
    assert sum(int(row["moments"].strip("[]").split(",")[0]) for row in units) == 120


async def test_usage_adds_up(both: Bed) -> None:
    await both.send([exchange(n, at=T0) for n in range(10)])
    await both.send([exchange(n, at=T0, outcome="error", status=502) for n in range(10, 13)])
    await both.send([exchange(13, at=T0, outcome="refused", status=429), exchange(14, at=T0 + 60, cache="hit")])
    rows = {row["minute"]: row for row in await both.table(tables.usage_minute)}
    first = rows[int(T0 // 60)]
    assert (first["requests"], first["errors"], first["refused"]) == (14, 3, 1)
    assert first["prompt_tokens"] == 14 * 12
    assert first["cost_nanousd"] == 14 * 1500
    assert sum(first["latency"].values()) == 13
    assert rows[int(T0 // 60) + 1]["cached"] == 1


async def test_feedback_after_archiving_is_kept_and_not_counted(bed: Bed) -> None:
    await bed.begin(AB)
    await bed.send(assigned(await entry_of(bed), range(3), T0))
    before = (await everything(bed))["experiment_statistics"]
    async with bed.control.database.write() as connection:
        await connection.execute(update(tables.experiments).values(state="archived"))
    await bed.send([feedback(1)])
    assert (await everything(bed))["experiment_statistics"] == before
    assert [row["state"] for row in await bed.table(tables.observations)] == ["attributed"]
