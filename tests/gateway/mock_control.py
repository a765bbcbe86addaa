"""The part of control that workers follow: real long polls on a real socket, and deltas with their checksums; it lies when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from penstock.core.checksum import entries_checksum, result_checksum
from penstock.core.snapshot import Snapshot, SnapshotDelta, difference
from penstock.net.server import Reply, Request, Server
from tests.gateway.house import House, running

JSON = [(b"content-type", b"application/json")]


class Control:
    """What workers hear from, and what they told. `garbage` is sent instead of a Snapshot, `lie` makes deltas lose their keys."""

    def __init__(self) -> None:
        self.now: Snapshot | None = None
        self.before: dict[int, Snapshot] = {}
        self.changed = asyncio.Condition()
        self.asked: list[str] = []
        self.garbage = b""
        self.lie = False
        self.reports: list[dict[str, object]] = []
        self.tokens: set[bytes | None] = set()
        self.server = Server(self._handle)

    async def publish(self, snapshot: Snapshot) -> None:
        async with self.changed:
            if self.now is not None:
                self.before[self.now.generation] = self.now
            self.now = snapshot
            self.changed.notify_all()

    async def _handle(self, request: Request, reply: Reply) -> None:
        self.tokens.add(request.header(b"authorization"))
        if request.path == "/internal/v1/report":
            self.reports.append(msgspec.json.decode(request.body))
            reply.send(200, JSON, b"{}")
            return
        query = request.query.decode()
        self.asked.append(query)
        after = int(query.split("after=")[1].split("&")[0])
        async with self.changed:
            await self.changed.wait_for(lambda: self.now is not None and self.now.generation != after)
        if self.garbage:
            reply.send(200, JSON, self.garbage)
            return
        assert self.now is not None
        answer: dict[str, Snapshot | SnapshotDelta] = {"snapshot": self.now}
        if after in self.before:
            delta = difference(self.before[after], self.now)
            checksum = result_checksum(entries_checksum(self.now), self.now.generation, self.now.environment)
            answer = {"delta": msgspec.structs.replace(delta, checksum=checksum, keys=() if self.lie else delta.keys)}
        reply.send(200, JSON, msgspec.json.encode(answer))


@asynccontextmanager
async def controlled(data: Path, **more: Any) -> AsyncIterator[tuple[House, Control]]:
    """A worker that follows a control of its own; `more` goes to `running`."""
    control = Control()
    await control.server.start()
    settings = {"control_url": f"http://127.0.0.1:{control.server.port}"}
    async with running(data, settings=settings, **more) as house:
        yield house, control
    await control.server.drain(0.1)


def next_of(house: House, **changes: object) -> Snapshot:
    now = house.worker.gateway.index.snapshot
    return msgspec.structs.replace(now, **{"generation": now.generation + 1, **changes})
