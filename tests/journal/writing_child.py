"""Writes records until it is killed, and prints the id of each only after it has been told that it is in the kernel."""

import asyncio
import os
import sys
import time
from pathlib import Path

from penstock.journal.writer import Bounds, JournalWriter
from tests.journal.records import exchange, opened


async def main(directory: Path, first: int) -> None:
    loop = asyncio.get_running_loop()
    writer = JournalWriter.open(directory, "w", loop=loop, clock=time.time, bounds=Bounds(segment_bytes=20_000))
    number = first
    while True:
        batch = range(number, number + 5)
        number += 5
        for n in batch:
            if n % 3 == 0:
                writer.append(opened(n))
            else:
                writer.append(exchange(n))
        if await writer.committed():
            os.write(1, "".join(f"{n}\n" for n in batch).encode())
        for n in batch:
            if n % 3 == 0 and n % 2 == 0:
                writer.append(exchange(n))


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
