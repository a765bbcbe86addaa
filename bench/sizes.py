"""What a month of records takes, by arithmetic on measured sizes: `python -m bench.sizes [--exchanges N]`.

The load is the worked example's: 100 requests/s at peak, which is twice the mean of a day. Exchanges are made up as gateways write them: every id,
hash, trace and time is different, streams have an opening record, and one request in twenty is followed by feedback.
"""

import argparse
import asyncio
import math
import random
import tempfile
import time
from pathlib import Path

from bench.series import SCRAPE_S, Series
from bench.series import measured as measured_series
from penstock.control.context import Control
from penstock.control.ingest.reader import ingest
from penstock.core.exchange import Exchange, Finding, Observation, Opened, Phases, Record, Usage
from penstock.core.ids import make_id
from penstock.core.settings import Settings
from penstock.journal.analytics.sink import ParquetSink
from penstock.journal.analytics.upkeep import Retention
from penstock.journal.ecs import document_of
from penstock.journal.format import HEADER_BYTES, Position
from penstock.journal.reader import JournalReader
from penstock.journal.ship import Shipper
from penstock.journal.writer import JournalWriter
from penstock.store.blobs import open_blobs
from penstock.store.sql import open_database

PEAK = 100.0  # requests a second
MEAN = PEAK / 2
MONTH_S = 30 * 86400
DAY_S = 86400.0
START = 1_795_219_200.0  # a midnight
_TENANTS = [f"tenant-{n}" for n in range(10)]
_WEIGHTS = [1 / (n + 1) for n in range(10)]


def made_up(number: int, at: float, draws: random.Random) -> list[Record]:
    """One request's records."""
    tenant = draws.choices(_TENANTS, _WEIGHTS)[0]
    user = draws.randbytes(16).hex() if draws.random() < 0.6 else ""
    failed = draws.random() < 0.01
    stream = draws.random() < 0.6
    arm = draws.choice(("control", "treatment"))
    first = 40_000_000 + int(draws.expovariate(1 / 6e7))
    last = first + int(draws.lognormvariate(20.5, 0.6))
    exchange = Exchange(
        id=make_id("req", int(at * 1000), draws.randbytes(10)),
        at=at,
        worker=f"gateway-{number % 4}",
        tenant=tenant,
        key=make_id("key", 1_700_000_000_000 + _TENANTS.index(tenant), b"\7" * 10),
        user=user,
        session=draws.randbytes(8).hex() if draws.random() < 0.3 else "",
        model="assistant",
        route="assistant",
        experiment="assistant-7b-v2",
        arm=arm,
        epoch=1,
        propensity=0.5,
        unit=user,
        pool=f"assistant-{arm}-int8",
        replica=f"assistant-{arm}-int8-{draws.randrange(4)}",
        version="assistant:v2.0.0" if arm == "treatment" else "assistant:v1.4.2",
        digest="sha256:" + ("ab" if arm == "treatment" else "cd") * 32,
        stream=stream,
        status=502 if failed else 200,
        outcome="error" if failed else "ok",
        error="upstream_failed" if failed else "",
        finish="" if failed else draws.choice(("stop", "stop", "length")),
        phases=Phases(
            draws.randrange(30_000, 90_000), draws.randrange(100_000, 400_000), 500_000, first, last, last + 80_000
        ),
        usage=Usage(int(draws.lognormvariate(6, 0.7)), int(draws.lognormvariate(5, 0.6)), 128 * (draws.random() < 0.3)),
        chunks=int(draws.lognormvariate(5, 0.6)) if stream else 0,
        cost_nanousd=int(draws.lognormvariate(12, 0.7)),
        cache="hit" if draws.random() < 0.1 else "miss",
        findings=(Finding(rule="cards", action="mask", where="input"),) if draws.random() < 0.02 else (),
        trace=f"00-{draws.randbytes(16).hex()}-{draws.randbytes(8).hex()}-01",
        generation=412,
    )
    records: list[Record] = [exchange]
    if stream:
        records.insert(0, Opened(exchange=exchange))
    if draws.random() < 0.05:
        told = Observation(
            id=draws.randbytes(8).hex(),
            at=at + 30,
            received=at + 30,
            kind="feedback",
            tenant=tenant,
            key=exchange.key,
            request=exchange.id,
            rating=1.0,
        )
        records.append(told)
    return records


async def measured(folder: Path, exchanges: int) -> dict[str, float]:
    """Bytes an exchange, of each kind of record."""
    draws = random.Random(1)
    writer = JournalWriter.open(folder / "journal" / "gateway-0", "gateway-0", loop=None, clock=time.time)
    document_bytes = 0
    for number in range(exchanges):
        for record in made_up(number, START + number / MEAN, draws):
            writer.append(record)
            if not isinstance(record, Opened) and number % 20 == 0:
                document_bytes += len(document_of(record, 2.0).source) * 20
        if number % 500 == 0:
            writer.flush()
    writer.close()
    now = START
    sink = ParquetSink(folder / "analytics", clock=lambda: now, disk_bytes=1 << 40)
    shipper = Shipper(sink, folder / "journal", folder / "ship")
    began = time.process_time()
    while await shipper.step():
        pass
    shipping = time.process_time() - began
    journal = sum(path.stat().st_size for path in (folder / "journal").rglob("*.pjl"))
    shipped = sink.store.bytes()
    now = START + 2 * DAY_S
    began = time.process_time()
    await sink.upkeep(Retention())
    merging = time.process_time() - began
    merged = sink.store.bytes()
    await sink.close()
    return {
        "journal": journal / exchanges,
        "Parquet, as shipped": shipped / exchanges,
        "Parquet, merged": merged / exchanges,
        "log document (JSON, before Elasticsearch's index)": document_bytes / exchanges,
        "control's index (SQLite)": await indexed(folder, min(exchanges, 20_000)),
        "shipping, us of CPU": shipping * 1e6 / exchanges,
        "merging, us of CPU": merging * 1e6 / exchanges,
    }


async def indexed(folder: Path, exchanges: int) -> float:
    """Bytes an exchange in control's database, of the first so many."""
    path = folder / "penstock.db"
    database = await open_database(f"sqlite+aiosqlite:///{path}")
    control = Control(
        settings=Settings(),
        data=folder,
        database=database,
        blobs=open_blobs("", folder / "blobs", database),
        service_token="-",
        clock=lambda: START,
        entropy=random.randbytes,
    )
    empty = path.stat().st_size
    reader = JournalReader(folder / "journal" / "gateway-0", Position(1, HEADER_BYTES))
    done = 0
    while done < exchanges and (batch := reader.read()) is not None:
        start, end = Position(batch.segment, batch.start), Position(batch.segment, batch.end)
        await ingest(control, "gateway-0", start, end, batch.body)
        done += sum(isinstance(record, Exchange) for _, record in batch.records())
    reader.close()
    await database.close()  # which folds the log into the file
    return (path.stat().st_size - empty) / done


def table(found: dict[str, float], exchanges: int, series: Series | None = None) -> str:
    """As the page shows it."""
    month = MEAN * MONTH_S
    lines = [
        f"{PEAK:g} requests/s at peak, {MEAN:g} on average: {month / 1e6:.1f} million exchanges in 30 days; sizes of {exchanges} made-up ones.",
        "",
        "| what | bytes an exchange | a day | 30 days |",
        "|---|---|---|---|",
    ]
    for name, size in found.items():
        if "CPU" in name:
            continue
        lines.append(f"| {name} | {size:.0f} | {shown(size * MEAN * DAY_S)} | {shown(size * month)} |")
    if series is not None:
        lines.append(
            f"| metrics in Prometheus: {series.count} series, one sample in {SCRAPE_S} s, {series.sample_bytes:.2f} bytes each | - "
            f"| {shown(series.bytes(DAY_S))} | {shown(series.bytes(MONTH_S))} |"
        )
    writing, merging = found["shipping, us of CPU"], found["merging, us of CPU"]
    lines += ["", f"The shipper's CPU time for it: {writing:.0f} us an exchange to write, {merging:.1f} us to merge."]
    return "\n".join(lines)


def shown(size: float) -> str:
    """Bytes with a unit, three digits."""
    power = min(4, int(math.log(max(size, 1), 1000)))
    return f"{size / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exchanges", type=int, default=200_000)
    exchanges = parser.parse_args().exchanges
    with tempfile.TemporaryDirectory() as folder:
        print(table(asyncio.run(measured(Path(folder), exchanges)), exchanges, measured_series()))


if __name__ == "__main__":
    main()
