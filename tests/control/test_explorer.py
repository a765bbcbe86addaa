"""The explorer: what is rare is found by the analytical store and the journals' tail, and what these do not hold by the index."""

import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.control.figures import coverage, explorer
from penstock.core.exchange import Exchange, Finding, Phases
from penstock.journal.analytics.seek import place_of
from penstock.journal.analytics.sink import ParquetSink
from penstock.journal.names import journal_name
from penstock.journal.ship import Shipper
from penstock.journal.writer import JournalWriter
from penstock.store.sql import Database
from tests.control.bed import T0, Bed, exchange

QUARTER = 21_600.0


class Host:
    """A gateway's host: its journal, its store, and control, which takes all of it in."""

    def __init__(self, bed: Bed, data: Path) -> None:
        self.bed = bed
        self.data = data
        self.records: list[Exchange] = []
        self._writer = JournalWriter.open(data / "journal" / "w", "w", loop=None, clock=lambda: T0)
        self._sink = ParquetSink(data / "analytics", clock=lambda: T0, disk_bytes=1 << 30)
        self._shipper = Shipper(self._sink, data / "journal", data / "ship")

    async def record(self, records: Sequence[Exchange], *, ship: bool = True) -> None:
        """Into the journal and the index; and into the store."""
        for one in records:
            self._writer.append(one)
        self._writer.flush()
        self.records += records
        name = journal_name(self.data / "journal" / "w")
        assert (await self.bed.send(records, source=name)).status_code == 200
        while ship and await self._shipper.step():
            pass

    async def close(self) -> None:
        self._shipper.close()
        await self._sink.close()
        self._writer.close()


@pytest.fixture
async def bed(sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    monkeypatch.setattr(explorer, "QUICK", 8)  # of the index, before the store is asked
    made = Bed(sqlite, tmp_path)
    await made.prepare()
    yield made
    await made.http.aclose()


@pytest.fixture
async def host(bed: Bed, tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(bed, tmp_path)
    yield made
    await made.close()


def spread(numbers: range) -> list[Exchange]:
    """Four a day, ending at T0; of two tenants; each has something that few others have."""
    found = (Finding(rule="cards", action="mask", where="input"),)
    return [
        exchange(
            n,
            at=T0 - (120 - n) * QUARTER,
            tenant="ab"[n % 2],
            model="rare" if n == 7 else "bot",
            outcome="error" if n % 10 == 4 else "ok",
            error="upstream_failed" if n % 10 == 4 else "",
            cost_nanousd=1_000_000 * (n % 13),
            findings=found if n % 17 == 3 else (),
            phases=Phases(1, 2, 3, 4, 5, (n % 11) * 1_000_000_000),
        )
        for n in numbers
    ]


async def pages(bed: Bed, key: str = "admin", **query: Any) -> tuple[list[str], list[str]]:
    """Ids of all pages, and what each page asked."""
    ids: list[str] = []
    through: list[str] = []
    while True:
        page = (await bed.call("GET", "/requests", key=key, **query)).json()
        ids += [one["id"] for one in page["requests"]]
        through.append(page["through"])
        if page["next"] is None:
            return ids, through
        query["before"] = page["next"]


def expected(records: Sequence[Exchange], wanted: Any) -> list[str]:
    return [one.id for one in sorted(records, key=place_of, reverse=True) if wanted(one)]


async def test_the_rare_is_found_in_one_page_of_store_and_journal_together(bed: Bed, host: Host) -> None:
    await host.record(spread(range(90)))
    await host.record(spread(range(90, 120)), ship=False)
    everything = host.records
    for query, wanted in (
        ({"model": "rare"}, lambda one: one.model == "rare"),
        ({"error": "upstream_failed", "tenant": "a"}, lambda one: one.error and one.tenant == "a"),
        ({"finding": "cards", "min_cost_usd": 0.004}, lambda one: one.findings and one.cost_nanousd >= 4_000_000),
        ({"min_latency_ms": 9_999.5, "from": T0 - 80 * QUARTER}, lambda one: one.phases.done >= 10**10 and one.at >= T0 - 80 * QUARTER),
    ):  # fmt: skip
        ids, through = await pages(bed, **query)
        assert ids == expected(everything, wanted), query
        assert through == ["store"], query
    assert len(expected(everything, lambda one: one.findings)) == 7


async def test_pages_go_on_where_they_ended_whatever_comes_meanwhile(bed: Bed, host: Host) -> None:
    await host.record(spread(range(100)))
    first = (await bed.call("GET", "/requests", outcome="error", limit=4)).json()
    late = [exchange(900, at=T0 - 70.5 * QUARTER, outcome="error"), exchange(901, at=T0, outcome="error")]
    await host.record(spread(range(100, 120)), ship=False)
    await host.record(late)
    rest, _ = await pages(bed, outcome="error", limit=4, before=first["next"])
    ids = [one["id"] for one in first["requests"]] + rest
    assert ids == expected([*host.records[:100], late[0]], lambda one: one.outcome == "error")


async def test_a_tenants_key_finds_its_own_alone_in_the_store_too(bed: Bed, host: Host) -> None:
    await host.record(spread(range(120)))
    ids, through = await pages(bed, "guest", finding="*")
    assert ids == expected(host.records, lambda one: one.findings and one.tenant == "b")
    assert through == ["store"]
    assert (await bed.call("GET", "/requests", key="guest", tenant="a")).status_code == 403
    theirs = host.records[7 - 7]  # of tenant a
    assert theirs.tenant == "a"
    assert await pages(bed, "guest", id=theirs.id[2:]) == ([], ["store"])
    whole = (await bed.call("GET", "/requests", key="guest", id=theirs.id)).json()
    assert whole["requests"] == []


async def test_a_whole_id_is_found_at_once(bed: Bed, host: Host) -> None:
    await host.record(spread(range(60)), ship=False)
    assert await pages(bed, id="req_000001") == (["req_000001"], ["index"])


async def test_what_the_store_does_not_hold_is_read_from_the_index(
    bed: Bed, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two days were never shipped, as if the store had been switched off: they come from the index, the days around them from the store."""
    await host.record(spread(range(40)))
    hole = spread(range(40, 48))
    assert (await bed.send(hole, source=journal_name(host.data / "journal" / "w"))).status_code == 200
    await host.record(spread(range(48, 120)))
    monkeypatch.setattr(explorer, "SCAN", 10)
    ids, through = await pages(bed, error="upstream_failed")
    assert ids == expected([*host.records, *hole], lambda one: one.error)
    assert set(through) == {"store", "index"}


async def test_journals_of_another_host_are_read_from_the_index(bed: Bed, host: Host) -> None:
    await host.record(spread(range(100)))
    theirs = exchange(500, at=T0 - 60.5 * QUARTER, model="rare")
    await bed.send([theirs], source="elsewhere.0123456789abcdef")
    ids, through = await pages(bed, model="rare")
    assert ids == [theirs.id, "req_000007"]
    assert set(through) == {"index"}


@pytest.mark.parametrize("harm", ["its files are gone", "its log is damaged", "it is far behind"])
async def test_a_store_that_does_not_answer_leaves_the_index(
    bed: Bed, host: Host, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await host.record(spread(range(60)))
    if harm == "its files are gone":
        shutil.rmtree(host.data / "analytics" / "exchanges")
    elif harm == "its log is damaged":
        next((host.data / "analytics" / "log").iterdir()).write_bytes(b"{")
    else:
        monkeypatch.setattr(coverage, "unwritten", lambda *_: (_ for _ in ()).throw(OSError("a disk that hangs")))
    assert await pages(bed, model="rare") == (["req_000007"], ["index"])


@pytest.mark.parametrize("before", ["17", "x.y", "-5.a"])
async def test_a_place_that_no_page_told_is_refused(bed: Bed, before: str) -> None:
    refused = await bed.call("GET", "/requests", before=before)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "before")
