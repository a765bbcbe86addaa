"""DuckDB and a look at each record find the same requests, in the same order, page by page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import BadRequest, Unavailable
from penstock.core.exchange import Exchange, Finding, Phases
from penstock.journal.analytics import find as finding
from penstock.journal.analytics.catalog import Catalog, State
from penstock.journal.analytics.child import run
from penstock.journal.analytics.find import find, unwritten
from penstock.journal.analytics.query import Bounds, ask_for
from penstock.journal.analytics.seek import NEWEST, Place, Sought, day_of, fits, place_from, place_of, statement
from penstock.journal.analytics.store import AnalyticsStore
from penstock.journal.analytics.tables import Row
from penstock.journal.format import Position
from penstock.journal.writer import JournalWriter
from tests.journal.records import exchange, observation

ODD = ["", "bot", "it's", 'a"b', "50%", "_", "über", "a,b", "\\"]
RULES = ["cards", "names", "card"]
START = 1_795_219_200.0  # a midnight


def odd(n: int) -> Exchange:
    found = tuple(Finding(rule=rule, action="mask", where="input") for k, rule in enumerate(RULES) if n >> k & 1)
    return exchange(
        n,
        id=f"req_{n * 7919 % 97:02d}{'%' if n % 11 == 0 else ''}",
        at=START + (n // 3) * 1800.0 + (n % 3) * 4e-7,  # of three, some share their microsecond
        tenant=["acme", "other's"][n % 2],
        model=ODD[n % len(ODD)],
        arm=ODD[n // 2 % len(ODD)],
        status=[200, 502, 0][n % 3],
        outcome=["ok", "error", "cancelled"][n % 3],
        error=["", "upstream_failed", ""][n % 3],
        phases=Phases(1, 2, 3, 4, 5, n % 5 * 100_000_000),
        cost_nanousd=n % 7 * 1000,
        findings=found if n % 2 else (),
    )


RECORDS = [odd(n) for n in range(96)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("analytics")
    store = AnalyticsStore(path)
    store.add("w", Position(1, 64), 500, [Row("w", Position(1, n), one) for n, one in enumerate(RECORDS)], 5.0)
    store.close()
    yield path


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


SOUGHT = st.builds(
    Sought,
    start_us=maybe(st.sampled_from([round((START + h * 3600) * 1e6) for h in range(17)])),
    tenant=maybe(st.sampled_from(["acme", "other's"])),
    model=maybe(st.sampled_from(ODD)),
    arm=maybe(st.sampled_from(ODD)),
    outcome=maybe(st.sampled_from(["ok", "error"])),
    error=maybe(st.sampled_from(["", "upstream_failed"])),
    status=maybe(st.sampled_from([0, 200])),
    min_latency_ms=maybe(st.sampled_from([0.0, 100.0, 200.5])),
    min_cost_usd=maybe(st.sampled_from([0.0, 2e-6, 3.0000001e-6])),
    finding=maybe(st.sampled_from([*RULES, "*", "rds"])),
    id=maybe(st.sampled_from(["req", "1", "%", "_", "'"])),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sought=SOUGHT, from_=st.integers(-1, 95), limit=st.sampled_from([1, 5, 200]))
def test_the_database_finds_what_a_look_at_each_record_finds(
    folder: Path, sought: Sought, from_: int, limit: int
) -> None:
    below = Place(NEWEST) if from_ < 0 else place_of(RECORDS[from_])
    expected = sorted((place_of(one) for one in RECORDS if fits(one, sought) and place_of(one) < below), reverse=True)
    told = run(ask_for(folder, statement(sought, below, limit), "", Bounds(rows=500)))
    assert [Place(*row) for row in told.rows] == expected[:limit]


@pytest.mark.parametrize("text", ["", "5", ".x", "-5.x", "5e3.x", "٣.x", "99999999999999999.x", "x.5"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="before"):
        place_from(text)


def test_places_are_told_and_taken_back() -> None:
    for one in (Place(0), Place(NEWEST), *(place_of(record) for record in RECORDS)):
        assert place_from(one.text()) == one
    assert day_of(round(START * 1e6)) == "2026-11-21"
    assert day_of(round(START * 1e6) - 1) == "2026-11-20"


BOUNDS = Bounds(rows=100)
DAYS = ("2026-11-21", "2026-11-21")


async def test_what_no_file_holds_yet_is_read_from_the_journals(tmp_path: Path) -> None:
    """Half is shipped, the other half stands in the journals alone, one of a worker that the store has not heard of: pages join both."""
    store = AnalyticsStore(tmp_path / "analytics")
    for worker, part in (("w", RECORDS[0:80:2]), ("late", RECORDS[1:80:2])):
        writer = JournalWriter.open(tmp_path / "journal" / worker, worker, loop=None, clock=lambda: 5.0)
        for n, one in enumerate(part):
            writer.append(one)
            if worker == "w" and n == 19:
                writer.flush()
                end = next((tmp_path / "journal" / "w").glob("*.pjl")).stat().st_size
        writer.append(observation(1))
        writer.close()
    rows = [Row("w", Position(1, n), one) for n, one in enumerate(RECORDS[0:40:2])]
    store.add("w", Position(1, 64), end, rows, 5.0)
    store.close()
    sought = Sought(outcome="error")
    expected = sorted((place_of(one) for one in RECORDS[:80] if fits(one, sought)), reverse=True)
    found: list[Place] = []
    below = Place(NEWEST)
    while page := await find(tmp_path / "analytics", tmp_path / "journal", sought, below, 15, days=DAYS, bounds=BOUNDS):
        found += page
        below = page[-1]
    assert found == expected

    state = Catalog(tmp_path / "analytics").read()
    tail = unwritten(tmp_path / "journal", state, Sought(), Place(NEWEST))
    assert sorted(tail) == sorted(place_of(one) for one in (*RECORDS[40:80:2], *RECORDS[1:80:2]))


def test_a_store_far_behind_its_journals_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = JournalWriter.open(tmp_path / "w", "w", loop=None, clock=lambda: 5.0)
    writer.append(RECORDS[0])
    writer.close()
    assert unwritten(tmp_path, State(), Sought(), Place(NEWEST)) == [place_of(RECORDS[0])]
    monkeypatch.setattr(finding, "TAIL_BYTES", 10)
    with pytest.raises(Unavailable, match="not in the analytical store"):
        unwritten(tmp_path, State(), Sought(), Place(NEWEST))
