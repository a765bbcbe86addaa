"""Two hosts whose workers are called alike ship to one control: every exchange counts, and once."""

from pathlib import Path

import msgspec
from sqlalchemy import delete, func, insert, select

from penstock.journal.names import journal_name
from penstock.journal.offsets import save_offset
from penstock.journal.ship import ControlSink, Shipper
from penstock.journal.writer import Bounds, JournalWriter
from penstock.store.schema_experiments import exchanges, ingest_counts, ingest_offsets, usage_minute
from penstock.store.sql import Database, open_database
from tests.control.house import TOKEN, LocalServers
from tests.control.test_serve import served
from tests.journal.records import exchange


def write(data: Path, numbers: range) -> None:
    bounds = Bounds(segment_bytes=4000)
    folder = data / "journal" / "gateway-0"
    writer = JournalWriter.open(folder, "gateway-0", loop=None, clock=lambda: 1.0, bounds=bounds)
    for number in numbers:
        writer.append(exchange(number))
        writer.flush()
    writer.close()


async def ship(data: Path, url: str) -> int:
    """All that is there; how many records went."""
    sink = ControlSink(url, TOKEN, journal=data / "journal", offsets=data / "ship")
    shipper = Shipper(sink, data / "journal", data / "ship")
    while await shipper.step():
        pass
    shipper.close()
    await sink.close()
    return shipper.counts.records


async def counted(database: Database) -> tuple[int, int, dict[str, int]]:
    """Exchanges in the index, requests in the statistics, and what was left out of them, by reason."""
    async with database.read() as connection:
        rows = (await connection.execute(select(func.count()).select_from(exchanges))).scalar_one()
        used = (await connection.execute(select(func.sum(usage_minute.c.requests)))).scalar_one()
        left = {row.reason: int(row._mapping["count"]) for row in await connection.execute(select(ingest_counts))}
    return rows, int(used or 0), left


async def test_two_hosts_ship_to_one_control(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write(one, range(40))
    write(other, range(1000, 1040))
    async with served(tmp_path / "control", LocalServers(), starter=None) as client:
        url = str(client.base_url)
        assert await ship(one, url) == 40
        assert await ship(other, url) == 40
        write(one, range(40, 60))
        write(other, range(1040, 1045))
        assert (await ship(other, url), await ship(one, url)) == (5, 20)  # shippers that were started anew
        database = await open_database(f"sqlite:///{tmp_path / 'control' / 'penstock.db'}")
        assert await counted(database) == (105, 105, {})
        async with database.read() as connection:
            sources = set((await connection.execute(select(ingest_offsets.c.source))).scalars())
        assert sources == {journal_name(data / "journal" / "gateway-0") for data in (one, other)}
        await database.close()


async def test_a_journal_that_control_knew_by_its_worker_alone_goes_on(tmp_path: Path) -> None:
    """As after an update: one host's place stands under `gateway-0`; the other's never could."""
    one, other = tmp_path / "one", tmp_path / "other"
    write(one, range(40))
    write(other, range(1000, 1040))
    async with served(tmp_path / "control", LocalServers(), starter=None) as client:
        url = str(client.base_url)
        await ship(one, url)
        database = await open_database(f"sqlite:///{tmp_path / 'control' / 'penstock.db'}")
        async with database.write() as connection:
            row = (await connection.execute(select(ingest_offsets))).one()
            await connection.execute(delete(ingest_offsets))
            await connection.execute(
                insert(ingest_offsets).values(source="gateway-0", segment=row.segment, offset=row.offset, at=row.at)
            )
        saved = one / "ship" / "control" / "gateway-0.json"
        place = msgspec.json.decode(saved.read_bytes())
        saved.write_bytes(msgspec.json.encode({"segment": place["segment"], "offset": place["offset"]}))
        write(one, range(40, 45))
        assert await ship(one, url) == 5
        assert await ship(other, url) == 40
        assert await counted(database) == (85, 85, {})
        await database.close()


async def test_a_folder_that_was_emptied_is_another_journal(tmp_path: Path) -> None:
    data = tmp_path / "one"
    write(data, range(40))
    async with served(tmp_path / "control", LocalServers(), starter=None) as client:
        url = str(client.base_url)
        await ship(data, url)
        for path in (data / "journal" / "gateway-0").iterdir():
            path.unlink()
        write(data, range(100, 103))
        assert await ship(data, url) == 3


def test_a_saved_place_is_of_one_journal(tmp_path: Path) -> None:
    from penstock.journal.format import Position
    from penstock.journal.offsets import load_offset, shipped_before

    save_offset(tmp_path, "control", "w", Position(5, 64), "w.1")
    assert load_offset(tmp_path, "control", "w", "w.1") == Position(5, 64)
    assert load_offset(tmp_path, "control", "w", "w.2") is None
    assert shipped_before(tmp_path, "w", "w.2") == 0, "nothing of the new journal is removed by the old one's place"
