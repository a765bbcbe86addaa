"""A worker that records at a rate until it is killed or told to stop, and prints the number of each request that it was told is in the kernel.

Every fourth request is a stream, which is opened some time before it ends: a kill in between leaves it open.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from penstock.core.exchange import Opened
from penstock.journal.writer import Bounds, JournalWriter
from tests.journal.sinks.records import served

BATCH = 10
OPEN_FOR = 3  # batches that a stream takes


async def main(directory: Path, first: int, rate: float) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    writer = JournalWriter.open(directory, "w", loop=loop, clock=time.time, bounds=Bounds(segment_bytes=40_000))
    running: dict[int, int] = {}  # stream: the batch in which it ends
    number, batch, began = first, 0, time.monotonic()
    while not stop.is_set() or running:
        done = [n for n, ends in running.items() if ends <= batch]
        for n in done:
            del running[n]
        if not stop.is_set():
            fresh = range(number, number + BATCH)
            number += BATCH
            for n in fresh:
                if n % 4:
                    done.append(n)
                else:
                    running[n] = batch + OPEN_FOR
                    writer.append(Opened(exchange=served(n, stream=True)))
        for n in done:
            writer.append(served(n, stream=n % 4 == 0))
        if await writer.committed():
            os.write(1, "".join(f"{n}\n" for n in done).encode())
        batch += 1
        await asyncio.sleep(max(0.0, began + batch * BATCH / rate - time.monotonic()))
    writer.close()


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
