"""A shipper with every sink, until it is killed or told to stop. Lines go to stdout, so that the port is told on stderr."""

import asyncio
import signal
import sys
import time
from pathlib import Path

from penstock.journal.analytics.sink import ParquetSink
from penstock.journal.elastic import ElasticSink
from penstock.journal.lines import LinesSink
from penstock.journal.otlp import OtlpHttp
from penstock.journal.otlp_grpc import OtlpGrpc
from penstock.journal.refusals import DeadLetters
from penstock.journal.sampling import Sampling
from penstock.journal.serve import serve_ship
from penstock.journal.ship import ControlSink, Shipper, Sink
from penstock.journal.traces import TraceSink
from penstock.journal.zipkin import Zipkin


async def main(folder: Path, control: str, elastic: str, otlp: str, zipkin: str) -> None:
    dead = DeadLetters(folder / "dead.ndjson")
    parquet = ParquetSink(folder / "analytics", clock=time.time, disk_bytes=1 << 40)
    carrier = OtlpGrpc(otlp) if otlp.startswith("grpc") else OtlpHttp(otlp)
    sinks: list[Sink] = [
        ControlSink(control, "token", journal=folder / "journal", offsets=folder / "ship"),
        ElasticSink(elastic, dead),
        TraceSink(carrier, Sampling(), dead),
        TraceSink(Zipkin(zipkin), Sampling(), dead),
        LinesSink(sys.stdout.buffer),
        parquet,
    ]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    shippers = [
        Shipper(sink, folder / "journal", folder / "ship", poll_s=1.0 if sink is parquet else 0.02) for sink in sinks
    ]
    await serve_ship(
        shippers,
        host="127.0.0.1",
        port=0,
        stop=stop,
        started=lambda port: print(port, flush=True, file=sys.stderr),
    )
    for sink in sinks:
        await sink.close()


asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:6]))
