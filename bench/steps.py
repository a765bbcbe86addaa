"""What a request costs in our own code, without the kernel: the real server, walk and client between two transports that are not sockets.

`python -m bench.steps` prints CPU microseconds a request, for JSON and for each event of a stream, of the whole and of what single features add to it.
The kernel's share is what `make bench` reads above it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.limits import limits_us
from bench.load import HERE
from bench.targets import RULES, bench_snapshot
from penstock.core.exchange import Record
from penstock.core.snapshot import Limits, Policy, Snapshot
from penstock.gateway.app import App
from penstock.gateway.gateway import Gateway
from penstock.journal.writer import Counts, JournalWriter
from penstock.net.client import Client, Origin, parse_origin
from penstock.net.connection import Connection
from penstock.net.response import UpstreamConnection
from penstock.net.server import Server
from penstock.store.ledger import LocalLedger
from penstock.store.limiter import Limiter

SECRET = "pk-bench"
_ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 80}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 250, "completion_tokens": 80, "total_tokens": 330},
    }
).encode()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
_FOR_A_VECTOR = b"POST /v1/embeddings "
_VECTOR = msgspec.json.encode({"data": [{"embedding": base64.b64encode(array("f", [0.05] * 384).tobytes()).decode()}]})
VECTOR = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_VECTOR), _VECTOR)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = 100


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(value: object) -> bytes:
    return _chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


_HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
EVENT = _event({**_HEAD, "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]})
END = (
    _event({**_HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    + _event({**_HEAD, "choices": [], "usage": {"prompt_tokens": 250, "completion_tokens": 100, "total_tokens": 350}})
    + _chunk(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


class Transport(asyncio.Transport):
    """Gives what is written to a callback, in the next turn of the loop."""

    def __init__(self, written: Callable[[bytes], None]) -> None:
        super().__init__()
        self._written = written
        self._closing = False

    def write(self, data: Any) -> None:
        self._written(data)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    abort = close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


class NoJournal:
    """A journal that takes nothing: records are neither encoded nor written."""

    def __init__(self) -> None:
        self.name = "none"
        self.counts = Counts()

    def append(self, record: Record) -> None: ...

    def add(self, record: Record) -> None: ...

    def committed(self) -> asyncio.Future[bool]:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        done.set_result(True)
        return done

    def flush(self) -> bool:
        return True

    async def strict(self) -> None: ...

    def check_strict(self) -> None: ...


class _Marks:
    """What phases are noted on."""

    __slots__ = ("admitted_ns", "decoded_ns", "dispatched_ns", "done_ns", "first_ns", "last_ns", "started_ns")

    def __init__(self) -> None:
        self.started_ns = time.monotonic_ns()
        self.decoded_ns = self.admitted_ns = self.dispatched_ns = self.first_ns = self.last_ns = self.done_ns = 0


def marks_us(requests: int = 20_000, rounds: int = 9) -> float:
    """CPU microseconds in which a request's six phases are noted: the one part of telemetry that no switch takes out of the way."""
    marks = _Marks()
    found = []
    for _ in range(rounds):
        before = time.process_time()
        for _ in range(requests):
            marks.decoded_ns = time.monotonic_ns() - marks.started_ns
            marks.admitted_ns = time.monotonic_ns() - marks.started_ns
            marks.dispatched_ns = time.monotonic_ns() - marks.started_ns
            marks.first_ns = time.monotonic_ns() - marks.started_ns
            marks.last_ns = time.monotonic_ns() - marks.started_ns
            marks.done_ns = time.monotonic_ns() - marks.started_ns
        found.append((time.process_time() - before) / requests * 1e6)
    return statistics.median(found)


class Bench:
    """One gateway, `connections` clients that ask again as soon as they are answered, and an engine that answers at once."""

    def __init__(
        self,
        snapshot: Snapshot,
        folder: Path,
        *,
        body: bytes,
        stream: bool,
        silent: bool = False,
        connections: int = 32,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.stream = stream
        self.left = 0
        self.asked = 0  # of engines, by the gateway
        self.done: asyncio.Future[None] = self.loop.create_future()
        journal = NoJournal() if silent else JournalWriter.open(folder, "bench", loop=self.loop, clock=time.time)
        self.client = Client(max_connections=4096)
        self.gateway = Gateway(
            worker="bench",
            snapshot=snapshot,
            journal=journal,
            limiter=Limiter(LocalLedger(), epoch=time.time() - time.monotonic()),
            client=self.client,
            subject_key=bytes(32),
            cache_bytes=1 << 24,
        )
        self.gateway.recorder.silent = silent
        self.server = Server(App(self.gateway))
        self.request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\nAuthorization: Bearer %b\r\n\r\n%b" % (len(body), SECRET.encode(), body)
        )
        for replica in (replica for pool in snapshot.pools for replica in pool.replicas):
            self._upstreams(parse_origin(replica.url), 2 * connections)
        self._count = connections
        self.connections: list[Connection] = []

    async def start(self) -> None:
        """Starts the server, whose socket nobody uses, and opens the connections."""
        await self.server.start()
        self.connections = [self._connect() for _ in range(self._count)]

    def _upstreams(self, origin: Origin, count: int) -> None:
        """Has the client find connections to `origin` whose other end is `_answer`."""
        bench = self
        pool = self.client.pool(origin)
        for _ in range(count):
            connection = UpstreamConnection(pool)
            connection.connection_made(Transport(lambda data, it=connection: bench._answer(it, data)))  # type: ignore[misc]
            pool.busy.add(connection)
            pool.release(connection)

    def _answer(self, connection: UpstreamConnection, asked: bytes) -> None:
        self.asked += 1
        if not self.stream:
            self.loop.call_soon(connection.data_received, VECTOR if asked.startswith(_FOR_A_VECTOR) else ANSWER)
            return
        self.loop.call_soon(self._emit, connection, STREAM_HEAD + EVENT, EVENTS - 2)

    def _emit(self, connection: UpstreamConnection, data: bytes, left: int) -> None:
        """One read of a stream a turn of the loop."""
        connection.data_received(data)
        if left:
            self.loop.call_soon(self._emit, connection, EVENT, left - 1)
        elif data is not END:
            self.loop.call_soon(self._emit, connection, END, 0)

    def _connect(self) -> Connection:
        connection = Connection(self.server)
        connection.connection_made(Transport(lambda data: self._replied(connection, data)))
        return connection

    def _replied(self, connection: Connection, data: bytes) -> None:
        if self.stream and not data.endswith(b"0\r\n\r\n"):
            return
        if b"HTTP/1.1 200" not in data and not self.stream:
            raise RuntimeError(data.decode())
        self.left -= 1
        if self.left >= len(self.connections):
            self.loop.call_soon(connection.data_received, self.request)
        elif self.left == 0:
            self.done.set_result(None)

    async def run(self, requests: int) -> float:
        """CPU microseconds of each of `requests`."""
        self.left = requests
        self.done = self.loop.create_future()
        before = time.process_time()
        for connection in self.connections:
            self.loop.call_soon(connection.data_received, self.request)
        await self.done
        return (time.process_time() - before) / requests * 1e6


def snapshot(*, limits: bool = True, cache: bool = True) -> Snapshot:
    """The bench's Snapshot, with features off."""
    made = bench_snapshot(9, SECRET, cache="exact" if cache else "off")
    if limits:
        return made
    replace = msgspec.structs.replace
    return replace(
        made,
        keys=tuple(replace(key, limits=Limits()) for key in made.keys),
        tenants=tuple(replace(tenant, limits=Limits()) for tenant in made.tenants),
    )


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run the whole, and what it tells."""

    name: str
    snapshot: Snapshot
    stream: bool = False
    silent: bool = False  # nothing is recorded, written or counted, and no stream is opened in a journal


def variants() -> list[Variant]:
    """The whole, without single features, and with more."""
    replace = msgspec.structs.replace
    whole = snapshot()
    pool = whole.pools[0]
    guarded = replace(whole, policies=(Policy(name="default", rules=RULES),))
    return [
        Variant(name="whole", snapshot=whole),
        Variant(name="without limits", snapshot=snapshot(limits=False)),
        Variant(name="without cache", snapshot=snapshot(cache=False)),
        Variant(name="without affinity", snapshot=replace(whole, pools=(replace(pool, affinity="off"),))),
        Variant(name="with rules", snapshot=guarded),
        Variant(name="silent", snapshot=whole, silent=True),
        Variant(name="stream", snapshot=whole, stream=True),
        Variant(name="silent stream", snapshot=whole, stream=True, silent=True),
        Variant(name="stream with rules", snapshot=guarded, stream=True),
    ]


async def measure(requests: int, rounds: int) -> dict[str, float]:
    """CPU microseconds of a request, or of an event of a stream, of each variant: medians of interleaved rounds."""
    with tempfile.TemporaryDirectory() as folder:
        benches: dict[str, Bench] = {}
        for variant in variants():
            body = (HERE / ("body1k_stream.json" if variant.stream else "body1k.json")).read_bytes()
            data = Path(folder) / variant.name.replace(" ", "-")
            data.mkdir()
            benches[variant.name] = bench = Bench(
                variant.snapshot, data, body=body, stream=variant.stream, silent=variant.silent
            )
            await bench.start()
            await bench.run(64 if variant.stream else requests)
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        found: dict[str, list[float]] = {name: [] for name in benches}
        for _ in range(rounds):
            for name, bench in benches.items():
                count = max(64, requests // 40) if bench.stream else requests
                found[name].append(await bench.run(count) / (EVENTS if bench.stream else 1))
        for bench in benches.values():
            await bench.client.close()
            await bench.server.drain(0)
        return {name: statistics.median(each) for name, each in found.items()}


async def table(requests: int, rounds: int) -> list[tuple[str, float]]:
    """What is printed."""
    us = await measure(requests, rounds)
    limits = await limits_us(requests=50_000)
    marks = marks_us()
    return [
        ("request, all of it", us["whole"]),
        ("  of it limits, six accounts", us["whole"] - us["without limits"]),
        ("    count; reserve and settle; fields", limits["all"]),
        ("  of it cache key and look-up", us["whole"] - us["without cache"]),
        ("  of it telemetry: phases, record, journal, metrics", us["whole"] - us["silent"] + marks),
        ("  of it prefix affinity among two replicas", us["whole"] - us["without affinity"]),
        ("three content rules, in and out", us["with rules"] - us["whole"]),
        ("event of a stream", us["stream"]),
        ("  of it telemetry", us["stream"] - us["silent stream"] + marks / EVENTS),
        ("  three content rules on it", us["stream with rules"] - us["stream"]),
    ]


def main() -> int:
    """Prints the table, or JSON with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = uvloop.run(table(options.requests, options.rounds))
    if options.json:
        print(json.dumps(dict(rows)))
        return 0
    for name, value in rows:
        print(f"{name:44} {value:8.2f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
