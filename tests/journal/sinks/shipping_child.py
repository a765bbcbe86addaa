"""A shipper with every sink, until it is killed or told to stop."""

import asyncio
import signal
import sys
from pathlib import Path

from penstock.journal.elastic import ElasticSink
from penstock.journal.otlp import OtlpHttp
from penstock.journal.refusals import DeadLetters
from penstock.journal.sampling import Sampling
from penstock.journal.serve import serve_ship
from penstock.journal.ship import Shipper, Sink
from penstock.journal.traces import TraceSink
from penstock.journal.zipkin import Zipkin


async def main(folder: Path, elastic: str, otlp: str, zipkin: str) -> None:
    dead = DeadLetters(folder / "dead.ndjson")
    sinks: list[Sink] = [
        ElasticSink(elastic, dead),
        TraceSink(OtlpHttp(otlp), Sampling(), dead),
        TraceSink(Zipkin(zipkin), Sampling(), dead),
    ]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    shippers = [Shipper(sink, folder / "journal", folder / "ship", poll_s=0.01) for sink in sinks]
    await serve_ship(shippers, host="127.0.0.1", port=0, stop=stop, started=lambda port: print(port, flush=True))


asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:5]))
