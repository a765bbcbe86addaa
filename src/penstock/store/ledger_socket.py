"""The ledger for several workers of one host: a server on a Unix socket, and its client."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from penstock.access.register import Refusal, Register
from penstock.store.ledger_asking import ANSWER_S, AskingLedger
from penstock.store.ledger_frames import Ask, Frames, GiveBack, Granted, Hello, Refused, decode_down, decode_up
from penstock.store.ledger_log import LedgerLog

GRACE_S = 5.0  # how long a restarted ledger waits for those who held seats
_SWEEP_S = 1.0


class _Session(Frames):
    """One worker's connection, at the server."""

    def __init__(self, server: "LedgerServer") -> None:
        super().__init__()
        self._server = server
        self.name = ""
        self.answers: list[Granted | Refused] = []

    def received(self, payload: bytes) -> None:
        for message in decode_up(payload):
            self._server.take(self, message)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._server.closing:
            self._drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.left(self)


class LedgerServer:
    """Serves a Register on a Unix socket. Changes are logged before the answers of a loop turn go out."""

    def __init__(self, path: Path, *, clock: Callable[[], float], log: LedgerLog | None = None) -> None:
        """A server for `path`; `clock` tells Unix seconds and must not go back; with a `log`, the books outlive the process."""
        self._path = path
        self._clock = clock
        self._log = log
        self._register = Register()
        self._sessions: dict[str, _Session] = {}
        self._server: asyncio.Server | None = None
        self._answering: list[_Session] = []
        self._scheduled = False
        self._grace: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._all: set[_Session] = set()
        self.closing = False

    async def start(self) -> None:
        """Read the log and listen. Workers that held seats have `GRACE_S` to join again before these are free."""
        if self._log is not None:
            for entry in self._log.read():
                self._register.restore(entry)
        loop = asyncio.get_running_loop()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._server = await loop.create_unix_server(self._join, str(self._path))
        self._path.chmod(0o600)
        self._sweep()
        if self._register.workers():
            self._grace = loop.call_later(GRACE_S, self._grace_over)

    async def close(self) -> None:
        """Stop listening and drop all connections; what is booked stays in the log."""
        self.closing = True
        for timer in (self._grace, self._sweeper):
            if timer is not None:
                timer.cancel()
        if self._server is not None:
            self._server.close()
            for session in list(self._all):
                if session.transport is not None:
                    session.transport.abort()
            await self._server.wait_closed()
        self._flush()
        if self._log is not None:
            self._log.close()

    def used(self, scope: str, resource: int) -> int:
        """What is booked now."""
        return self._register.used(scope, resource, self._clock())

    @property
    def sessions(self) -> list[str]:
        """The workers that are connected."""
        return list(self._sessions)

    def take(self, session: _Session, message: Hello | Ask | GiveBack) -> None:
        """One message of a worker."""
        now = self._clock()
        register = self._register
        if isinstance(message, Ask):
            answer = register.grant(session.name, message.wants, now)
            if isinstance(answer, Refusal):
                session.answers.append(Refused(message.id, answer))
            else:
                session.answers.append(Granted(message.id, answer))
        elif isinstance(message, GiveBack):
            for returned in message.returned:
                register.take_back(session.name, returned, now)
        else:
            session.name = message.session
            self._sessions[message.session] = session
            register.holds(message.session, message.seats)
        if len(session.answers) == 1:
            self._answering.append(session)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def left(self, session: _Session) -> None:
        """A connection is gone: the worker is dead, or will join again and say what it holds."""
        self._all.discard(session)
        if self.closing:
            return
        if self._sessions.get(session.name) is session:
            del self._sessions[session.name]
            self._register.leave(session.name)

    def _join(self) -> _Session:
        session = _Session(self)
        self._all.add(session)
        return session

    def _sweep(self) -> None:
        self._register.sweep(self._clock())
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _grace_over(self) -> None:
        for worker in self._register.workers():
            if worker not in self._sessions:
                self._register.leave(worker)

    def _flush(self) -> None:
        self._scheduled = False
        entries = self._register.entries
        if entries and self._log is not None:
            self._log.append(entries)
            if self._log.full:
                self._log.rewrite(self._register.dump(self._clock()))
        entries.clear()
        answering, self._answering = self._answering, []
        for session in answering:
            if session.answers:
                session.send(session.answers)
                session.answers = []


class _Link(Frames):
    """The connection, at the worker."""

    def __init__(self, ledger: "SocketLedger") -> None:
        super().__init__()
        self._ledger = ledger

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._ledger.joined(self)

    def received(self, payload: bytes) -> None:
        for message in decode_down(payload):
            self._ledger.answered(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ledger.lost(self)


class SocketLedger(AskingLedger):
    """The client of one worker. It joins again by itself when the connection breaks."""

    def __init__(self, path: Path, session: str, *, clock: Callable[[], float]) -> None:
        """A client of the server at `path`.

        Args:
            path: the socket.
            session: unique for this process's life, such as `gateway-0/PID/TIME`.
            clock: monotonic seconds, for time limits.
        """
        super().__init__(clock)
        self._path = path
        self._session = session
        self._link: _Link | None = None
        self._scheduled = False
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    async def start(self) -> None:
        """Connect, and stay connected. A server that is not there yet is no error: see `up`."""
        with contextlib.suppress(OSError):
            await self._connect()
        self._task = asyncio.create_task(self._keep(), name="ledger")

    async def close(self) -> None:
        """Send what is to be returned, and leave."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._flush()
        if self._link is not None and self._link.transport is not None:
            self._link.transport.close()

    @property
    def up(self) -> bool:
        """Whether the server is connected."""
        return self._link is not None

    def joined(self, link: _Link) -> None:
        """The connection stands."""
        self._forget_seats()
        self._link = link
        link.send([Hello(self._session, self.seats())])
        self._schedule()

    def answered(self, message: Granted | Refused) -> None:
        """An answer has come."""
        self._answer(message.id, message.leases if isinstance(message, Granted) else message.refusal)

    def lost(self, link: _Link) -> None:
        """The connection is gone."""
        if self._link is not link:
            return
        self._link = None
        self._fail_all()
        self._wake.set()

    def _schedule(self) -> None:
        if not self._scheduled and self._link is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._link is None:
            return
        messages: list[Ask | GiveBack] = [Ask(identity, wants) for identity, wants in self._asks]
        if returned := self._take_returns():
            messages.insert(0, GiveBack(returned))
        if messages:
            self._link.send(messages)
            self._asks.clear()

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: _Link(self), str(self._path))

    async def _keep(self) -> None:
        """Join again when the connection is lost; drop it when an answer is overdue."""
        pause = 0.02
        while True:
            if self._link is not None:
                pause = 0.02
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANSWER_S / 4):
                        await self._wake.wait()
                link = self._link
                if link is not None and link.transport is not None and self._overdue():
                    link.transport.abort()
                continue
            try:
                await self._connect()
            except OSError:
                await asyncio.sleep(pause)
                pause = min(1.0, 2 * pause)
