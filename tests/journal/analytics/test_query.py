from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.core.errors import BadRequest, NotFound, Unavailable
from penstock.journal.analytics.child import Refused, run
from penstock.journal.analytics.named import NAMED, sql_of
from penstock.journal.analytics.query import Bounds, ask_for, run_query
from penstock.journal.analytics.store import AnalyticsStore
from penstock.journal.analytics.tables import Row
from penstock.journal.format import Position
from tests.journal.records import exchange, observation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("house") / "it's a store"
    store = AnalyticsStore(path)
    for tenant in ("acme", "other"):
        records = [exchange(n, tenant=tenant, id=f"{tenant}{n}") for n in range(20)] + [observation(1)]
        batch = [Row(tenant, Position(1, n), record) for n, record in enumerate(records)]
        store.add(tenant, Position(1, 64), 500, batch, 5.0)
    store.close()
    yield path


REFUSED = [
    "COPY exchanges TO '/tmp/stolen.csv'",
    "COPY (SELECT 1) TO '{inside}/x.parquet'",
    "ATTACH '/tmp/x.db'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM parquet_metadata('{other}')",
    "SELECT * FROM read_parquet('{other}')",
    "SELECT * FROM read_json_auto('http://127.0.0.1:1/x')",
    "PRAGMA database_list",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET memory_limit",
    "INSTALL httpfs",
    "LOAD '/tmp/evil.duckdb_extension'",
    "EXPORT DATABASE '/tmp/out'",
    "CREATE TABLE t AS SELECT 1",
    "DROP VIEW exchanges",
    "CALL pragma_version()",
    "SELECT 1; DROP VIEW exchanges",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/stolen.csv'",
    "SELECT * FROM query('COPY (SELECT 1) TO ''/tmp/stolen.csv''')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM read_text(''/etc/passwd'')'))",
    "",
    "SELEC",
]


async def test_statements_that_reach_out_are_refused(folder: Path) -> None:
    other = str(next(folder.rglob("tenant=other/*.parquet"))).replace("'", "''")
    inside = str(folder).replace("'", "''")
    before = sorted(folder.rglob("*"))
    for sql in REFUSED:
        with pytest.raises(Refused) as told:
            run(ask_for(folder, sql.format(other=other, inside=inside), "acme", Bounds(seconds=10)))
        assert told.value.code == "invalid_query", sql
    for sql in REFUSED[:4]:
        with pytest.raises(BadRequest) as refused:
            await run_query(folder, sql.format(inside=inside), bounds=Bounds(seconds=10))
        assert refused.value.code == "invalid_query", sql
    assert sorted(folder.rglob("*")) == before
    assert not Path("/tmp/stolen.csv").exists()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(1000000) a, range(1000000) b, range(10) c WHERE a.range * b.range = 17",
        "SELECT list(a.range) FROM range(1000000000) a",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
    ],
)
async def test_statements_without_end_are_stopped(folder: Path, sql: str) -> None:
    with pytest.raises(BadRequest) as told:
        await run_query(folder, sql, bounds=Bounds(seconds=0.5, memory_mb=128))
    assert told.value.code == "query_too_costly"


async def test_results_are_cut_by_rows_and_bytes(folder: Path) -> None:
    found = await run_query(folder, "SELECT * FROM range(1000000000)", bounds=Bounds(rows=7))
    assert (len(found.rows), found.cut) == (7, True)
    found = await run_query(folder, "SELECT repeat('x', 1000) FROM range(1000)", bounds=Bounds(bytes=50_000))
    assert (len(found.rows), found.cut) == (49, True)
    found = await run_query(folder, "SELECT id FROM exchanges", tenant="acme")
    assert (len(found.rows), found.cut) == (20, False)


async def test_values_come_as_json_has_them(folder: Path) -> None:
    sql = (
        "SELECT 'nan'::DOUBLE, 1.5::DECIMAL(9,2), DATE '2026-11-23', TIMESTAMP '2026-11-23 01:02:03', 10::HUGEINT ** 25, "
        "[1, NULL], {'a': 'x'}, 2::HUGEINT ** 100, '\\xAB'::BLOB, true, INTERVAL 1 DAY"
    )
    (row,) = (await run_query(folder, sql)).rows
    assert row[:4] == (None, 1.5, "2026-11-23", "2026-11-23T01:02:03")
    assert row[5:7] == ([1, None], {"a": "x"})
    assert row[8:] == ("ab", True, "1 day, 0:00:00")


async def test_every_named_query_runs(folder: Path) -> None:
    for name in NAMED:
        assert (await run_query(folder, sql_of(f"@{name}"))).columns
    with pytest.raises(NotFound, match="@cost"):
        sql_of("@nothing")
    with pytest.raises(Unavailable, match="no analytical store"):
        await run_query(folder / "elsewhere", "SELECT 1")


async def test_queries_go_on_while_files_are_merged(tmp_path: Path) -> None:
    """A query whose files went before it began to read them asks the log again."""
    store = AnalyticsStore(tmp_path)
    for turn in range(3):
        rows = [Row("w", Position(1, n), exchange(n)) for n in range(turn * 10, turn * 10 + 10)]
        store.add("w", Position(1, 64 + turn), 65 + turn, rows, 5.0)
    stale = ask_for(tmp_path, "SELECT count(*) FROM exchanges", "", Bounds())
    store.merge(list(store.state.files.values()), 6.0)
    assert run(stale).rows == ((30,),)
    store.tidy(7.0, grace_s=0.0)
    with pytest.raises(FileNotFoundError):
        run(stale)
    assert (await run_query(tmp_path, stale.sql)).rows == ((30,),)
    store.close()
