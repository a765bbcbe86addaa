"""A control plane that takes in journals as the real one does, and misbehaves when told to."""

from urllib.parse import parse_qs

import msgspec

from penstock.core.exchange import Record
from penstock.journal.format import Position, decode_frames
from penstock.net.server import Reply, Request, Server
from tests.journal.records import ids

JSON = ((b"content-type", b"application/json"),)


class FakeControl:
    def __init__(self) -> None:
        self.committed: dict[str, Position] = {}
        self.records: dict[str, list[Record]] = {}
        self.faults: list[str] = []
        self.posts = 0
        self.heard: list[tuple[tuple[str, ...], float]] = []
        self.server = Server(self.handle)

    async def start(self, port: int = 0) -> str:
        await self.server.start("127.0.0.1", port)
        return f"http://127.0.0.1:{self.server.port}"

    def of(self, worker: str) -> list[Record]:
        """The records of all journals of workers that are called so."""
        return [one for source, some in self.records.items() if source.startswith(f"{worker}.") for one in some]

    def ids(self, worker: str) -> list[str]:
        return ids(self.of(worker))

    async def handle(self, request: Request, reply: Reply) -> None:
        assert request.header(b"authorization") == b"Bearer token"
        if request.path == "/internal/v1/ingest/offsets":
            offsets = {s: {"segment": p.segment, "offset": p.offset} for s, p in self.committed.items()}
            reply.send(200, JSON, msgspec.json.encode(offsets))
            return
        if request.path == "/internal/v1/ingest/heard":
            told = parse_qs(request.query.decode())
            self.heard.append((tuple(told.get("journal", ())), float(told["behind"][0])))
            reply.send(200, JSON, b"{}")
            return
        self.posts += 1
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "refuse":
            reply.send(500, JSON, b"{}")
            return
        query = {k: v[0] for k, v in parse_qs(request.query.decode()).items()}
        source, segment = query["source"], int(query["segment"])
        start, end = Position(segment, int(query["start"])), Position(segment, int(query["end"]))
        committed = self.committed.get(source)
        if committed is not None and start != committed and start.segment <= committed.segment:
            reply.send(409, JSON, msgspec.json.encode({"segment": committed.segment, "offset": committed.offset}))
            return
        self.records.setdefault(source, []).extend(decode_frames(request.body))
        self.committed[source] = end
        if fault == "silent":  # committed, but nobody hears of it
            reply.abort()
            return
        reply.send(200, JSON, msgspec.json.encode({"segment": segment, "offset": end.offset}))
