"""How long the explorer takes for a page: `python -m bench.explorer [--exchanges N] [--back N]`.

Made-up exchanges of the worked example (as `bench.sizes` makes them), spread over four days, go through the real journal and shipper into the
store, and into control's index; the newest stand in the journal alone. One of them, so many back, has what no other has.
"""

import argparse
import asyncio
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path

import msgspec
from sqlalchemy import insert

from bench.sizes import DAY_S, START, made_up
from penstock.control.context import Control
from penstock.control.figures.explorer import Explorer, Wanted
from penstock.control.figures.statements import Statements
from penstock.core.exchange import Exchange, Finding
from penstock.core.settings import Settings
from penstock.journal.analytics.sink import ParquetSink
from penstock.journal.analytics.upkeep import Retention
from penstock.journal.names import journal_name
from penstock.journal.ship import Shipper
from penstock.journal.writer import JournalWriter
from penstock.store.blobs import open_blobs
from penstock.store.schema_experiments import exchanges, ingest_offsets
from penstock.store.sql import Database, open_database

DAYS = 4
_TAIL = 2_000
_PIECE = 5_000
RARE = {"model": "rare", "error": "rare_error", "min_latency_ms": 3_600_000.0, "min_cost_usd": 900.0, "finding": "rare"}


def rare(one: Exchange) -> Exchange:
    """One that all of `RARE` finds, and nothing else."""
    return msgspec.structs.replace(
        one,
        model="rare",
        outcome="error",
        error="rare_error",
        cost_nanousd=10**12,
        findings=(Finding(rule="rare", action="flag", where="output"),),
        phases=msgspec.structs.replace(one.phases, done=4_000_000_000_000),
    )


async def fill(folder: Path, database: Database, count: int, back: int) -> Exchange:
    """Write all of it; the rare one."""
    draws = random.Random(1)
    writer = JournalWriter.open(folder / "journal" / "gateway-0", "gateway-0", loop=None, clock=time.time)
    sink = ParquetSink(folder / "analytics", clock=lambda: START + DAYS * DAY_S, disk_bytes=1 << 40)
    shipper = Shipper(sink, folder / "journal", folder / "ship")
    rows: list[dict[str, object]] = []
    found: Exchange | None = None
    for number in range(count):
        if number == count - _TAIL:
            writer.flush()
            while await shipper.step():
                pass
        at = START + number / count * DAYS * DAY_S
        for record in made_up(number, at, draws):
            whole = rare(record) if number == count - back and isinstance(record, Exchange) else record
            writer.append(whole)
            if isinstance(whole, Exchange):
                rows.append(row(number, whole))
                found = whole if number == count - back else found
        if number % 500 == 0:
            writer.flush()
        if len(rows) == _PIECE or number == count - 1:
            async with database.write() as connection:
                await connection.execute(insert(exchanges), rows)
            rows = []
    writer.close()
    await sink.upkeep(Retention())
    await sink.close()
    async with database.write() as connection:
        source = journal_name(folder / "journal" / "gateway-0")
        await connection.execute(insert(ingest_offsets).values(source=source, segment=1, offset=1, at=START))
    assert found is not None
    return found


def row(number: int, one: Exchange) -> dict[str, object]:
    """As ingest writes it."""
    names = ("id", "at", "tenant", "route", "experiment", "arm", "epoch", "version", "digest", "status", "outcome")
    told = {name: getattr(one, name) for name in names}
    record = msgspec.msgpack.encode(one)
    return told | {"sequence": number, "unit": f"{one.tenant}/{one.unit}", "told": 0, "record": record}


async def measured(folder: Path, count: int, back: int, times: int) -> list[str]:
    """Lines of the table."""
    database = await open_database(f"sqlite+aiosqlite:///{folder / 'penstock.db'}")
    settings = Settings()
    control = Control(
        settings=settings,
        data=folder,
        database=database,
        blobs=open_blobs("", folder / "blobs", database),
        service_token="-",
        clock=lambda: START + DAYS * DAY_S,
        entropy=random.randbytes,
    )
    one = await fill(folder, database, count, back)
    with_store = Explorer(control, Statements(settings, folder / "analytics"))
    without = Explorer(control, Statements(settings, folder / "none"))
    asked = [("no filter", Wanted())]
    asked += [(f"`{name}` of one request, {back} back", Wanted(**{name: value})) for name, value in RARE.items()]
    asked += [
        (f"a part of that one's id, {back} back", Wanted(id=one.id[5:-1])),
        ("`outcome` error, a hundredth of all, first page", Wanted(outcome="error")),
        ("`model` that nobody asked for", Wanted(model="nobody")),
    ]
    lines = ["| looked for | pages | seconds until found | of CPU | without the store |", "|---|---|---|---|---|"]
    for name, wanted in asked:
        cells = []
        for explorer in (with_store, without):
            took = [await until_found(explorer, wanted) for _ in range(times if explorer is with_store else 1)]
            median, cpu = (statistics.median(one[k] for one in took) for k in (1, 2))
            cells.append((took[0][0], median, cpu))
        (pages, median, cpu), (pages_without, other, _) = cells
        lines.append(f"| {name} | {pages} | {median:.2f} | {cpu:.2f} | {pages_without} pages, {other:.2f} |")
    await database.close()
    return lines


def cpu_s() -> float:
    """CPU time of this process and of those that it started, seconds."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


async def until_found(explorer: Explorer, wanted: Wanted) -> tuple[int, float, float]:
    """Pages until something is found or all is looked through, and how many seconds they took, on the clock and of CPU."""
    began, before_cpu = time.perf_counter(), cpu_s()
    pages, before = 0, None
    while True:
        page = await explorer.page(wanted.model_copy(update={"before": before}), None)
        pages += 1
        if page.found or page.next is None:
            return pages, time.perf_counter() - began, cpu_s() - before_cpu
        before = page.next.text()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exchanges", type=int, default=600_000)
    parser.add_argument("--back", type=int, default=500_000)
    parser.add_argument("--times", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = asyncio.run(measured(Path(folder), asked.exchanges, asked.back, asked.times))
    print(f"{asked.exchanges} made-up exchanges over {DAYS} days, {asked.times} times each.\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
