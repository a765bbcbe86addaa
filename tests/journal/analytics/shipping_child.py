"""Ships journals into an analytical store until it is killed, with upkeep all the time, and says when it stands still."""

import asyncio
import sys
from pathlib import Path

from penstock.journal.analytics.sink import ParquetSink
from penstock.journal.analytics.upkeep import Retention
from penstock.journal.ship import Shipper


async def main(folder: Path) -> None:
    sink = ParquetSink(folder / "analytics", clock=lambda: 2e5, disk_bytes=1 << 30)
    shipper = Shipper(sink, folder / "journal", folder / "ship", poll_s=0.001)
    await sink.positions()
    print("begun", flush=True)
    while True:
        moved = await shipper.step()
        await sink.upkeep(Retention())
        if not moved and not shipper.lag():
            print("done", flush=True)
            await asyncio.sleep(3600)


asyncio.run(main(Path(sys.argv[1])))
