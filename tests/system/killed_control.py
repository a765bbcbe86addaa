"""Control processes that can be killed and are back at once, and what fills the journal that they are sent.

Each life of a control is `penstock control` itself, forked from a process that has its modules loaded: a start takes a third of a second.
"""

import asyncio
import multiprocessing
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Self

import msgspec

from penstock.cli.main import cli
from penstock.core.errors import PenstockError
from penstock.core.exchange import Observation, Phases, Record
from penstock.core.snapshot import ExperimentEntry
from penstock.journal.reader import Batch
from penstock.journal.ship import ControlSink
from penstock.journal.writer import Bounds, JournalWriter
from tests.control.bed import assigned, feedback

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["penstock.control.serve", "penstock.console.app", "tests.system.killed_control"])
USERS = 700
NEAR = 60  # what is told is about a request so near, before it or after it
PACE_S = 0.02
Entries = list[tuple[str, ExperimentEntry]]  # each with its route


class ControlProcess:
    """One installation's control, on a port that is its own for all of its lives."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.process: ForkServerProcess | None = None
        self._port = socket.socket()  # bound and never listening: nobody else is given it
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._port.getsockname()[1]}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._port.close()

    def start(self) -> None:
        """Begin a life."""
        self.process = FORKING.Process(target=_control, args=(str(self.data), self._port.getsockname()[1]))
        self.process.start()

    def lives(self) -> bool:
        return self.process is not None and self.process.is_alive()

    def kill(self) -> None:
        """SIGKILL, whatever it is doing."""
        if self.process is not None:
            self.process.kill()
            self.process.join(30)

    def stop(self) -> None:
        """SIGTERM, and wait until it is gone."""
        assert self.process is not None
        self.process.terminate()
        self.process.join(60)
        assert self.process.exitcode == 0

    def secret(self, name: str) -> str:
        return (self.data / name).read_text().strip()


def _control(data: str, port: int) -> None:
    Path(data).mkdir(exist_ok=True)
    log = os.open(Path(data) / "control.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    cli.main(["control", "--data", data, "--host", "127.0.0.1", "--control-port", str(port), "--empty"])


class DeadlySink(ControlSink):
    """Hands batches to a control and, when it was armed, has it killed while the next one is being taken in.

    Attributes:
        cut: the batches during which control died.
    """

    def __init__(self, control: ControlProcess, journal: Path, offsets: Path) -> None:
        super().__init__(control.url, control.secret("service.token"), journal=journal, offsets=offsets)
        self.cut = 0
        self._control = control
        self._part: float | None = None
        self._took_s = 0.01

    def arm(self, part: float) -> None:
        """Kill control when about so much of the time that the last batch took is over."""
        self._part = part

    async def send(self, worker: str, batch: Batch) -> None:
        began, process = time.monotonic(), self._control.process
        aimed = self._part is not None and process is not None and process.is_alive()
        if aimed and self._part is not None and process is not None:
            asyncio.get_running_loop().call_later(self._part * self._took_s, process.kill)
            self._part = None
        try:
            await super().send(worker, batch)
        except PenstockError:
            self.cut += aimed  # it was not through before
            raise
        self._took_s = time.monotonic() - began


class Writing:
    """A worker's journal, written by a process of its own until the block ends."""

    def __init__(self, directory: Path, entries: Entries, seed: int) -> None:
        self._stop: Event = FORKING.Event()
        self._process = FORKING.Process(target=_write, args=(str(directory), entries, seed, self._stop))

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._process.join(30)
        assert self._process.exitcode == 0


def _write(directory: str, entries: Entries, seed: int, stop: Event) -> None:
    with ExitStack() as open_:
        writer = JournalWriter.open(
            Path(directory), "gateway-0", loop=None, clock=time.time, bounds=Bounds(segment_bytes=200_000)
        )
        open_.callback(writer.close)
        for records in traffic(entries, random.Random(seed)):
            for record in records:
                writer.append(record)
            writer.flush()
            if stop.wait(PACE_S):
                return


def traffic(entries: Entries, rng: random.Random) -> Iterator[tuple[Record, ...]]:
    """Requests of users in one experiment after the other, each with what is told early, late, twice and wrongly."""
    number = 0
    while True:
        number += 1
        now = time.time()
        route, entry = entries[number % len(entries)]
        (one,) = assigned(entry, [rng.randrange(USERS)], now)
        took = int(rng.lognormvariate(0, 0.5) * 1e8)
        about = max(1, number + rng.randint(-NEAR, NEAR))
        again = rng.random() < 0.05
        yield (
            msgspec.structs.replace(
                one,
                id=f"req_{number:06d}",
                route=route,
                stream=rng.random() < 0.4,
                outcome="error" if rng.random() < 0.1 else "ok",
                phases=Phases(1, 2, 3, took // 3, took, took),
                cost_nanousd=rng.randrange(5000),
            ),
            feedback(about, id=f"f{number - again}", at=now, received=now, success=rng.random() < 0.6),
            Observation(
                id=f"p{number}",
                at=now,
                received=now,
                kind="event",
                tenant="a" if rng.random() < 0.97 else "b",
                name="purchase",
                value=rng.choice((5.0, -3.0, float("nan"), 1e12, None, 80.0)),
                request=f"req_{about:06d}",
            ),
        )
