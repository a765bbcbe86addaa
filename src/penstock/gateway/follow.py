"""Follows control's Snapshots: by long poll where control is, by the file on disk where it is not."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

import msgspec

from penstock.core.errors import Damaged, PenstockError, UpstreamFailed
from penstock.core.snapshot import Snapshot, SnapshotDelta, patched
from penstock.gateway.gateway import Gateway
from penstock.gateway.index import Index
from penstock.gateway.keep import mark, read_snapshot, write_snapshot
from penstock.net.client import Client, Timeouts, parse_origin

_log = logging.getLogger("penstock.gateway")

WAIT_S = 20.0  # of one long poll
REPORT_S = 2.0
WATCH_S = 0.25
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_MAX_SNAPSHOT_BYTES = 1 << 30


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """Control's answer: the whole, or what has changed."""

    snapshot: Snapshot | None = None
    delta: SnapshotDelta | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker tells control of itself."""

    worker: str
    pid: int
    generation: int
    at: float
    refused: str = ""


_decode = msgspec.json.Decoder(Published).decode


class _Unfit(Exception):
    """A delta that does not start from the Snapshot in use."""


def _read(body: bytes, old: Snapshot) -> Snapshot:
    published = _decode(body)
    if published.delta is not None:
        try:
            return patched(old, published.delta)
        except ValueError as error:
            raise _Unfit from error
    if published.snapshot is None:
        raise UpstreamFailed("control published neither a Snapshot nor a delta")
    return published.snapshot


class Follower:
    """Keeps a gateway's Snapshot the newest. Bad ones are refused whole: the old one stays, and `refused` tells why."""

    def __init__(self, gateway: Gateway, client: Client, *, file: Path, control_url: str, token: str) -> None:
        self._gateway = gateway
        self._client = client
        self._file = file
        self._seen = gateway.index.generation  # the newest generation looked at, taken or refused
        self._lines = b"authorization: Bearer %b\r\n" % token.encode()
        self._origin = parse_origin(control_url) if control_url else None
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follows until cancelled."""
        if self._origin is None:
            await self._watch()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll())
            group.create_task(self._report())

    async def _watch(self) -> None:
        known = (0, 0, 0)  # looked at once more: it may have changed since the start
        while True:
            await asyncio.sleep(WATCH_S)
            now = mark(self._file)
            if now == known:
                continue
            known = now
            try:
                snapshot = await asyncio.to_thread(read_snapshot, self._file)
            except (Damaged, OSError) as error:
                _log.warning("the Snapshot on disk is not taken: %s", error)
                continue
            if snapshot is not None and snapshot.generation > self._gateway.index.generation:
                await self._take(snapshot)

    async def _poll(self) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            try:
                await self._ask()
                pause = _FIRST_PAUSE_S
            except (PenstockError, ValueError, OSError) as error:
                _log.debug("control tells no Snapshot: %s", error)
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE_S, 2 * pause)

    async def _ask(self) -> None:
        if self._origin is None:
            return
        path = b"/internal/v1/snapshot?after=%d&wait=%d" % (self._seen, int(WAIT_S))
        timeouts = Timeouts(first_byte_s=WAIT_S + 10, stall_s=10)
        response = await self._client.request(self._origin, b"GET", path, timeouts=timeouts, lines=self._lines)
        body = await response.read(_MAX_SNAPSHOT_BYTES)
        if response.status == 204:
            return
        if response.status != 200:
            raise UpstreamFailed(f"control answered {response.status}")
        old = self._gateway.index
        try:
            snapshot = await asyncio.to_thread(_read, body, old.snapshot)
        except _Unfit:
            self._seen = 0  # it starts from a generation that is not here: ask for the whole
            return
        if await self._take(snapshot):
            await asyncio.to_thread(self._keep, snapshot)
        elif self._seen >= snapshot.generation:
            await asyncio.sleep(_FIRST_PAUSE_S)
        self._seen = max(snapshot.generation, self._gateway.index.generation)

    async def _take(self, snapshot: Snapshot) -> bool:
        gateway = self._gateway
        try:  # away from the requests: with many keys it takes a while
            gateway.swap(await asyncio.to_thread(Index, snapshot, gateway.index))
        except (ValueError, PenstockError) as error:
            gateway.refuse(snapshot.generation, error)
            _log.error("a Snapshot was refused: %s", gateway.refused)
            return False
        finally:
            self._changed.set()
        return True

    def _keep(self, snapshot: Snapshot) -> None:
        try:
            write_snapshot(self._file, snapshot)
        except OSError as error:
            _log.error("the Snapshot could not be kept in %s: %s", self._file, error)

    async def _report(self) -> None:
        gateway = self._gateway
        while self._origin is not None:
            report = Report(
                worker=gateway.worker,
                pid=os.getpid(),
                generation=gateway.index.generation,
                at=time.time(),
                refused=gateway.refused,
            )
            try:
                response = await self._client.request(
                    self._origin,
                    b"POST",
                    b"/internal/v1/report",
                    [(b"content-type", b"application/json")],
                    msgspec.json.encode(report),
                    Timeouts(first_byte_s=5, stall_s=5),
                    self._lines,
                )
                await response.read()
            except PenstockError as error:
                _log.debug("control took no report: %s", error)
            self._changed.clear()
            try:
                async with asyncio.timeout(REPORT_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
