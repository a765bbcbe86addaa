"""A host and a control that keeps its keys: the second implementation of the port, as gateways and people meet it together."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI

from penstock.control.api.keystore import key_exchange_router
from penstock.control.content.keystore import SharedKeystore
from penstock.control.errors import install_error_handlers
from penstock.journal.key_exchange import SKEW_S, KeyExchange
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.keystore import Census, Tombstone
from penstock.journal.masterkey import Wrapping
from penstock.journal.sealing import SubjectKey
from penstock.store.schema_keys import key_hosts, key_orders, subject_keys
from penstock.store.sql import Database, open_database

MASTER = Wrapping(bytes(32))
T = TypeVar("T")


class LoopThread:
    """A loop in a thread of its own, as control's is to those who call the port."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Fleet:
    """One control with its database, and hosts that share keys with it. The clock is the test's."""

    def __init__(self, folder: Path, thread: LoopThread, database: Database) -> None:
        self.folder = folder
        self.thread = thread
        self.database = database
        self.now = 0.0
        self.local = self.keystore("control")
        self.shared = SharedKeystore(database, self.local, thread.loop, lambda: self.now)
        app = FastAPI()
        app.state.control = SimpleNamespace(service_token="token")
        install_error_handlers(app)
        app.include_router(key_exchange_router(self.shared, self.local.folder / "root.json"))
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://control",
            headers={"authorization": "Bearer token"},
        )

    def keystore(self, name: str, *, own_root: bool = False) -> FileKeystore:
        """The keys of a host; all have control's root, unless it is said otherwise."""
        folder = self.folder / name
        root = self.folder / "control" / "root.json"
        if not own_root and not folder.exists() and root.exists():
            folder.mkdir()
            shutil.copy(root, folder / "root.json")
        return FileKeystore.open(folder, MASTER, clock=lambda: self.now)

    def exchange(self, keys: FileKeystore) -> KeyExchange:
        return KeyExchange(keys, self.ask, keys.folder.name)

    async def ask(self, method: bytes, path: str, body: bytes) -> tuple[int, bytes]:
        answer = await self._http.request(method.decode(), path, content=body)
        return answer.status_code, answer.content

    def step(self, exchange: KeyExchange) -> None:
        self.thread.run(exchange.step())

    def close(self) -> None:
        self.local.close()
        self.thread.run(self._http.aclose())


async def emptied(database: Database) -> Database:
    async with database.write() as connection:
        for table in (subject_keys, key_orders, key_hosts):
            await connection.execute(table.delete())
    return database


async def opened(url: str) -> Database:
    return await open_database(url)


class HostOfFleet:
    """A `Keymaker` that makes keys on a host, and looks for and destroys them at control; the two exchange at once what else they do each second."""

    def __init__(self, fleet: Fleet, keys: FileKeystore, exchanges: list[Callable[[], None]]) -> None:
        self._fleet = fleet
        self._keys = keys
        self._exchanges = exchanges

    @property
    def hash_key(self) -> bytes:
        assert self._fleet.shared.hash_key == self._keys.hash_key
        return self._keys.hash_key

    def key_of(self, tenant: str, subject: str) -> SubjectKey:
        found = self._keys.key_of(tenant, subject)
        self._all()
        return found

    def find(self, key: str) -> SubjectKey | Tombstone | None:
        found = self._fleet.shared.find(key)
        assert self._keys.find(key) == found, "the host and control agree"
        return found

    def forget(self, tenant: str, subject: str | None, now: float) -> int:
        self._fleet.now = max(self._fleet.now, now)
        count = self._fleet.shared.forget(tenant, subject, now)
        self._all()
        self._fleet.now = max(self._fleet.now, now + SKEW_S + 1)
        return count

    @property
    def unsynced(self) -> bool:
        return self._keys.unsynced

    def sync(self) -> None:
        self._keys.sync()

    def census(self) -> Census:
        return self._fleet.shared.census()

    def close(self) -> None:
        self._keys.close()

    def _all(self) -> None:
        for exchange in self._exchanges:
            exchange()
