"""Follows control's Snapshots: by long poll where control is, by the file on disk where it is not."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from pathlib import Path

import msgspec

from penstock.core.checksum import advanced, entries_checksum, result_checksum
from penstock.core.errors import Damaged, PenstockError, UpstreamFailed
from penstock.core.reports import MOST_FAULTS, MOST_OUT, Report
from penstock.core.snapshot import Snapshot, SnapshotDelta, patched
from penstock.gateway.gateway import Gateway
from penstock.gateway.index import UNUSABLE, Index
from penstock.gateway.keep import mark, read_snapshot, write_snapshot
from penstock.gateway.standing import Standing
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


_decode = msgspec.json.Decoder(Published).decode


class _Unfit(Exception):
    """A delta that does not start from the Snapshot in use, or leads to another one than control has."""


class _Sums:
    """The checksum of the Snapshot in use, carried on from delta to delta."""

    def __init__(self) -> None:
        self._of: Snapshot | None = None
        self._entries = 0

    def after(self, old: Snapshot, delta: SnapshotDelta) -> int:
        """The checksum of the entries of `old` with `delta` applied."""
        if self._of is not old:
            self._of, self._entries = old, entries_checksum(old)
        return advanced(self._entries, old, delta)

    def take(self, snapshot: Snapshot, entries: int) -> None:
        """`snapshot` has this checksum."""
        self._of, self._entries = snapshot, entries


def _read(body: bytes, old: Snapshot, sums: _Sums) -> Snapshot:
    published = _decode(body)
    delta, snapshot = published.delta, published.snapshot
    if delta is not None:
        try:
            snapshot = patched(old, delta)
        except ValueError as error:
            raise _Unfit(str(error)) from error
        if delta.checksum:
            entries = sums.after(old, delta)
            if result_checksum(entries, snapshot.generation, snapshot.environment) != delta.checksum:
                raise _Unfit(f"the delta to generation {delta.generation} leads to something else here than at control")
            sums.take(snapshot, entries)
        return snapshot
    if snapshot is None:
        raise ValueError("control published neither a Snapshot nor a delta")
    if snapshot.generation < 1:
        raise ValueError(f"control published the generation {snapshot.generation}, and they begin at 1")
    return snapshot


class Follower:
    """Keeps a gateway's Snapshot the newest.

    What is no Snapshot is refused whole: the one in use stays, and `refused` tells why. Of one that is, single entries may be of no
    use: those fail closed, all else is served.
    """

    def __init__(self, gateway: Gateway, client: Client, *, file: Path, control_url: str, token: str) -> None:
        self._gateway = gateway
        self._client = client
        self._file = file
        self._seen = gateway.index.generation  # the newest generation looked at, taken or refused
        self._lines = b"authorization: Bearer %b\r\n" % token.encode()
        self._origin = parse_origin(control_url) if control_url else None
        self._changed = asyncio.Event()
        self._sums = _Sums()

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
            except (PenstockError, ValueError, RecursionError, OSError) as error:
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
        gateway = self._gateway
        try:
            snapshot = await asyncio.to_thread(_read, body, gateway.index.snapshot, self._sums)
        except _Unfit as error:
            _log.warning("a delta is of no use, the whole Snapshot is asked for: %s", error)
            gateway.meters.error("snapshot_delta")
            self._seen = 0
            return
        except (ValueError, RecursionError) as error:
            gateway.refuse(0, error)
            self._changed.set()
            self._seen = 0
            raise
        if await self._take(snapshot):
            await asyncio.to_thread(self._keep, snapshot)
        elif self._seen >= snapshot.generation:
            await asyncio.sleep(_FIRST_PAUSE_S)
        self._seen = max(snapshot.generation, self._gateway.index.generation)

    async def _take(self, snapshot: Snapshot) -> bool:
        gateway = self._gateway
        try:  # away from the requests: with many keys it takes a while
            gateway.swap(await asyncio.to_thread(Index, snapshot, gateway.index))
        except UNUSABLE as error:
            gateway.refuse(snapshot.generation, error)
            _log.error("a Snapshot was refused: %s", gateway.refused)
            return False
        finally:
            self._changed.set()
        for fault in gateway.index.faults[:MOST_FAULTS]:
            _log.error(
                "the %s %s of generation %d cannot be used: %s",
                fault.kind,
                fault.name,
                gateway.index.generation,
                fault.why,
            )
        return True

    def _keep(self, snapshot: Snapshot) -> None:
        try:
            write_snapshot(self._file, snapshot)
        except OSError as error:
            _log.error("the Snapshot could not be kept in %s: %s", self._file, error)

    async def _report(self) -> None:
        gateway, host = self._gateway, socket.gethostname()
        while self._origin is not None:
            faults = gateway.index.faults
            report = Report(
                worker=gateway.worker,
                host=host,
                journal=gateway.journal.name,
                pid=os.getpid(),
                generation=gateway.index.generation,
                at=time.time(),
                refused=gateway.refused,
                faults=tuple(faults[:MOST_FAULTS]),
                fault_count=len(faults),
                out=tuple(Standing(gateway.pools).out()[:MOST_OUT]),
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
