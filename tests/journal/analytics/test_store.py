import resource
from pathlib import Path

import msgspec
import pytest

from penstock.core.engine_phases import EnginePhases
from penstock.core.errors import Conflict, Damaged
from penstock.core.exchange import Exchange, Finding, Observation, Phases, Usage
from penstock.journal.analytics.catalog import KEEP, Catalog, File, State
from penstock.journal.analytics.child import run
from penstock.journal.analytics.query import Bounds, Result, ask_for
from penstock.journal.analytics.sink import ParquetSink
from penstock.journal.analytics.store import AnalyticsStore
from penstock.journal.analytics.tables import SCHEMA, Row
from penstock.journal.analytics.upkeep import Retention, plan_upkeep
from penstock.journal.format import Position
from penstock.journal.reader import Batch
from penstock.journal.ship import OutOfPlace
from penstock.journal.spans import trace_of
from tests.journal.records import exchange, observation

DAY_S = 86400.0
NUMBERS = [0, 2**31 - 1, 2**31, 2**63 - 1, 2**64 - 1]


def rows(numbers: range, **changes: object) -> list[Row]:
    return [Row("w", Position(1, 100 * n), exchange(n, **changes)) for n in numbers]


def ask(folder: Path, sql: str, tenant: str = "") -> Result:
    return run(ask_for(folder, sql, tenant, Bounds(rows=100)))


def files_on(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.parquet")}


def test_a_record_is_a_row_with_its_phases_and_no_content(tmp_path: Path) -> None:
    store = AnalyticsStore(tmp_path)
    whole = exchange(
        1,
        phases=Phases(1_000_000, 3_000_000, 4_000_000, 9_000_000, 20_000_000, 21_000_000),
        findings=(Finding(rule="cards", action="mask", where="input", count=2),),
        trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        tenant="a/b c",
        engine=EnginePhases(500_000, 0, 3_000_000, 9_000_000, 250_000),
    )
    refused = exchange(2, phases=Phases(1_000_000, 0, 0, 0, 0, 2_500_000), tenant="", trace="nonsense")
    said = observation(3)
    records: tuple[Exchange | Observation, ...] = (whole, refused, said)
    batch = [Row("w", Position(1, n), record) for n, record in enumerate(records)]
    store.add("w", Position(1, 64), 500, batch, 5.0)
    store.close()
    sql = (
        "SELECT tenant, decode_ms, admit_ms, dispatch_ms, wait_ms, answer_ms, settle_ms, latency_ms, first_token_ms, "
        "findings, rules, trace_id, day FROM exchanges ORDER BY id"
    )
    assert (ask(tmp_path, sql)).rows == (
        (
            "a/b c",
            1.0,
            2.0,
            1.0,
            5.0,
            11.0,
            1.0,
            21.0,
            9.0,
            2,
            "cards",
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "1970-01-01",
        ),
        ("", 1.0, None, None, None, None, 1.5, 2.5, None, 0, "", trace_of(refused).hex(), "1970-01-01"),
    )
    phases = ", ".join(f"engine_{name}_ms" for name in EnginePhases.__struct_fields__)
    assert ask(tmp_path, f"SELECT {phases} FROM exchanges ORDER BY id").rows == (
        (0.5, 0.0, 3.0, 9.0, 0.25),
        (None,) * 5,
    )
    assert (ask(tmp_path, "SELECT kind, rating, request, text_chars FROM observations")).rows == (
        ("feedback", 1.0, "r", 0),
    )
    assert (ask(tmp_path, "SELECT count(*) FROM exchanges", tenant="a/b c")).rows == ((1,),)
    assert (ask(tmp_path, "SELECT count(*) FROM exchanges", tenant="nobody")).rows == ((0,),)


def test_odd_values_stop_nothing(tmp_path: Path) -> None:
    """Models and callers say what they like: a number that does not fit is NULL, a text is what it is."""
    store = AnalyticsStore(tmp_path)
    names = ["a\0b", "new\nline", "it's; DROP VIEW exchanges", "\U0010ffff", ""]
    odd: list[Exchange | Observation] = [
        exchange(n, model=name, usage=Usage(size, -size))
        for n, (name, size) in enumerate(zip(names, NUMBERS, strict=True))
    ]
    for n, at in enumerate((-62_135_596_800.0, 253_402_300_799.0)):
        said = observation(n)
        odd.append(msgspec.structs.replace(said, at=at, rating=float("inf"), value=float("nan")))
    store.add("w", Position(1, 64), 500, [Row("w", Position(1, n), one) for n, one in enumerate(odd)], 5.0)
    assert ask(tmp_path, "SELECT model, prompt_tokens FROM exchanges ORDER BY id").rows == tuple(
        (name, size if size < 2**31 else None) for name, size in zip(names, NUMBERS, strict=True)
    )
    assert ask(tmp_path, "SELECT year(happened), rating, value FROM observations ORDER BY id").rows == (
        (1, None, None),
        (9999, None, None),
    )
    store.merge([file for file in store.state.files.values() if file.table == "exchanges"], 6.0)
    store.close()


def test_merging_sorts_keeps_one_row_an_id_and_serves_those_who_read_meanwhile(tmp_path: Path) -> None:
    store = AnalyticsStore(tmp_path)
    store.add("w", Position(1, 64), 200, rows(range(20, 30)), 5.0)
    store.add("w", Position(1, 200), 300, rows(range(20)), 5.0)
    crashed = exchange(3, outcome="crashed", at=2000.0)
    store.add("v", Position(1, 64), 300, [Row("v", Position(1, 64), crashed)], 5.0)
    before = files_on(tmp_path)
    store.merge(list(store.state.files.values()), 10.0)
    assert [(file.rows, file.merged) for file in store.state.files.values()] == [(30, True)]
    assert store.removed.repeated == 1
    assert before < files_on(tmp_path), "a reader that began before still finds them"
    store.tidy(11.0)
    assert before < files_on(tmp_path)
    store.tidy(10_000.0)
    assert files_on(tmp_path) == set(store.state.files)
    found = (ask(tmp_path, "SELECT id, outcome FROM exchanges")).rows
    assert found == tuple((exchange(n).id, "ok") for n in range(30))
    store.close()


def test_what_a_killed_writer_left_is_no_part_of_it_and_is_swept(tmp_path: Path) -> None:
    store = AnalyticsStore(tmp_path)
    store.add("w", Position(1, 64), 200, rows(range(3)), 5.0)
    with pytest.raises(Conflict, match="Another shipper"):
        AnalyticsStore(tmp_path)
    stray = tmp_path / "exchanges/day=1970-01-01/tenant=acme/w-0000000001-000000000200-000000000900.parquet"
    stray.write_bytes(b"half a file")
    stray.with_suffix(".parquet.draft").write_bytes(b"less")
    state = store.state
    store.close()
    again = AnalyticsStore(tmp_path)
    assert again.state == state
    assert files_on(tmp_path) == set(state.files)
    assert not list(tmp_path.rglob("*.draft"))
    again.close()


def test_a_disk_that_is_full_changes_nothing_and_is_tried_again(tmp_path: Path) -> None:
    store = AnalyticsStore(tmp_path)
    store.add("w", Position(1, 64), 100, rows(range(5)), 5.0)
    before = store.state
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(OSError, match="could not be written"):
            store.add("w", Position(1, 100), 200, rows(range(5, 3000)), 5.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.state == before
    store.add("w", Position(1, 100), 200, rows(range(5, 3000)), 5.0)
    assert sum(file.rows for file in store.state.files.values()) == 3000
    assert not list(tmp_path.rglob("*.draft"))
    store.close()


def test_the_log_stays_short_and_has_one_writer(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    state = State()
    for number in range(2 * KEEP + 3):
        state = catalog.commit(state, float(number), positions={"w": Position(1, number)})
        assert catalog.read() == state
    assert len(list((tmp_path / "log").iterdir())) <= KEEP + 2
    with pytest.raises(Conflict, match="Another process"):
        catalog.commit(State(number=state.number - 1), 1.0)
    (tmp_path / "log" / f"{state.number:010d}.json").write_bytes(b"{")
    with pytest.raises(Damaged, match="no entry"):
        catalog.read()


async def test_a_batch_counts_once_however_often_it_is_sent(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path, clock=lambda: 5.0, disk_bytes=1 << 30)
    batch = Batch(segment=1, start=64, end=500, frames=())
    assert await sink.positions() == {}
    await sink.send("w", batch)
    with pytest.raises(OutOfPlace):
        await sink.send("w", batch)
    await sink.send("w", Batch(segment=2, start=64, end=500, frames=()))
    assert await sink.positions() == {"w": Position(2, 500)}
    await sink.close()


async def test_days_go_by_their_tenants_policy_and_the_oldest_by_the_bound(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path, clock=lambda: 40.5 * DAY_S, disk_bytes=1 << 30)
    for tenant in ("short", "long", "plain"):
        for day in (1, 9, 35, 39):
            place = Position(day, 64)
            record = exchange(day, tenant=tenant, at=day * DAY_S + 5)
            sink.store.add(tenant, place, 500, [Row(tenant, place, record)], 5.0)
    await sink.upkeep(Retention(default=30, tenants={"short": 3, "long": 1000}))
    kept = "SELECT tenant, list(epoch(day) // 86400 ORDER BY day) FROM exchanges GROUP BY tenant ORDER BY tenant"
    assert (ask(tmp_path, kept)).rows == (("long", [1, 9, 35, 39]), ("plain", [35, 39]), ("short", [39]))
    assert sink.store.removed.retention == 5
    assert sink.store.state.files.keys() < files_on(tmp_path), "for those who read meanwhile"
    bound = sink.store.bytes() - 1
    await sink.close()
    sink = ParquetSink(tmp_path, clock=lambda: 41.0 * DAY_S, disk_bytes=bound)
    await sink.upkeep(Retention())
    assert (ask(tmp_path, kept)).rows[0] == ("long", [9, 35, 39])
    assert sink.store.removed.bound == 1
    assert next(f.name for family in sink.collect() for f in family.samples) == "penstock_analytics_bytes"
    await sink.close()


def file(day: str, number: int, size: int = 100, *, merged: bool = False) -> File:
    return File(
        table="exchanges", day=day, tenant="t", name=f"{number}", rows=1, bytes=size, schema=SCHEMA, merged=merged
    )


def test_a_day_that_is_over_becomes_one_file_and_is_then_left_alone() -> None:
    def merges(files: list[File]) -> list[int]:
        return [len(group) for group in plan_upkeep(files, "2026-11-23", Retention(), 1 << 40).merge]

    assert merges([file("2026-11-23", n) for n in range(15)]) == []
    assert merges([file("2026-11-23", n) for n in range(16)]) == [16]
    assert merges([file("2026-11-22", 1)]) == [1], "its ids may repeat"
    assert merges([file("2026-11-22", 1, merged=True)]) == []
    assert merges([file("2026-11-22", 1, merged=True), file("2026-11-22", 2)]) == [2], "what came late"
    assert merges([file("2026-11-22", n, 1 << 26) for n in range(9)]) == [], "large enough"
    assert merges([file("2026-11-22", n, 50 << 20) for n in range(9)]) == [5]
