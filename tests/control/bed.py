"""A control plane without its loops: stores, our routers, keys to call them with, and a journal source to send from."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx
import msgspec
from fastapi import APIRouter, FastAPI
from sqlalchemy import insert, select

from penstock.control.api.experiments import experiments_router
from penstock.control.api.statistics import statistics_router
from penstock.control.content.opened import Contents
from penstock.control.context import SYSTEM, Control
from penstock.control.deploy.canary_watch import Watch
from penstock.control.errors import install_error_handlers
from penstock.control.experiments.evaluate import Evaluator
from penstock.control.experiments.life import register, start
from penstock.control.experiments.past import gather_past
from penstock.control.experiments.signal import Signal
from penstock.control.figures.explorer import Explorer
from penstock.control.figures.statements import Statements
from penstock.control.ingest.reader import ingest_router
from penstock.control.ingest.texts import Late
from penstock.core.digests import hash_secret
from penstock.core.exchange import Exchange, Observation, Phases, Record, Usage
from penstock.core.reports import Report
from penstock.core.settings import Settings
from penstock.experiments.assignment import compile_experiment, unit_of
from penstock.experiments.design import parse_design
from penstock.journal.format import encode_frame
from penstock.store import schema
from penstock.store.blobs import open_blobs
from penstock.store.sql import Database

T0 = 1_800_000_000.0

AB: dict[str, Any] = {
    "strategy": "ab",
    "route": "bot",
    "unit": "user",
    "hypothesis": "b is better",
    "arms": [
        {"name": "control", "pool": "old", "weight": 0.5},
        {"name": "treatment", "pool": "new", "weight": 0.5},
    ],
    "primary": {"metric": "success", "minimum_effect": 0.05},
    "guardrails": [{"metric": "error_rate"}],
    "plan": {"units": 300},
}
CANARY: dict[str, Any] = AB | {
    "strategy": "canary",
    "plan": {"units": 300, "steps": [0.1, 0.5, 1.0], "step_s": 10, "step_units": 5, "lapse_s": 30},
}


class Bed:
    """See the module; `now` is the clock."""

    def __init__(self, database: Database, data: Path) -> None:
        self.now = T0
        self._count = 0
        self.control = Control(
            settings=Settings(),
            data=data,
            database=database,
            blobs=open_blobs("", data / "blobs", database),
            service_token="service",
            clock=lambda: self.now,
            entropy=self._entropy,
        )
        self.contents: Contents | None = None  # destroys the keys of what is taken in too late
        self.signal = Signal(Watch(lambda: (Report(worker="w1", host="here", journal="w1.1", at=self.now),)))
        self.evaluator = Evaluator(self.control, self.signal)
        self.offsets: dict[str, int] = {}
        app = FastAPI()
        app.state.control = self.control
        install_error_handlers(app)
        api = APIRouter(prefix="/api/v1")
        api.include_router(experiments_router())
        api.include_router(statistics_router(Explorer(self.control, Statements(Settings(), data / "analytics"))))
        app.include_router(api)
        app.include_router(ingest_router(self.signal, self._forget))
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control")

    def _entropy(self, size: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(size, "big")

    async def _forget(self, late: list[Late]) -> None:
        if self.contents is not None:
            await self.contents.forget_late(late)

    async def prepare(self) -> None:
        """Two adopted pools, a route, and a key for each role."""
        async with self.control.database.write() as connection:
            for kind, name, spec in (
                ("Pool", "old", {"adopt": ["http://127.0.0.1:9001"]}),
                ("Pool", "new", {"adopt": ["http://127.0.0.1:9002"]}),
                ("Route", "bot", {"to": [{"pool": "old"}]}),
                ("Route", "other", {"to": [{"pool": "old"}]}),
            ):
                await connection.execute(
                    insert(schema.resources).values(
                        kind=kind, name=name, spec=spec, generation=1, origin="api", created_at=T0, updated_at=T0
                    )
                )
            for name, roles, tenant in (
                ("admin", ["admin"], None),
                ("analyst", ["analyst"], None),
                ("guest", ["analyst"], "b"),
            ):
                await connection.execute(
                    insert(schema.keys).values(
                        id=f"key_{name}",
                        hash=hash_secret(name),
                        name=name,
                        tenant=tenant,
                        roles=roles,
                        limits={},
                        origin="api",
                        created_at=T0,
                    )
                )

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str = "admin", **query: Any
    ) -> httpx.Response:
        """A call of the public API."""
        return await self.http.request(
            method, f"/api/v1{path}", json=body, params=query, headers={"authorization": f"Bearer {key}"}
        )

    async def send(
        self,
        records: Iterable[Record],
        *,
        source: str = "w1",
        start_at: int | None = None,
        segment: int = 1,
        token: str = "service",
    ) -> httpx.Response:
        """A batch, from where the source stands."""
        body = b"".join(encode_frame(record) for record in records)
        begin = self.offsets.get(source, 64) if start_at is None else start_at
        response = await self.http.post(
            "/internal/v1/ingest",
            params={"source": source, "segment": segment, "start": begin, "end": begin + len(body)},
            content=body,
            headers={"authorization": f"Bearer {token}"},
        )
        if response.status_code == 200:
            self.offsets[source] = begin + len(body)
        return response

    async def hear(self, behind: float = 0.0, token: str = "service", **query: Any) -> httpx.Response:
        """What a shipper tells that has read all journals to their ends."""
        told: dict[str, Any] = {"behind": behind, "journal": ["w1.1"]} | query
        return await self.http.post(
            "/internal/v1/ingest/heard",
            params=told,
            headers={"authorization": f"Bearer {token}"},
        )

    async def begin(self, spec: dict[str, Any], name: str = "e") -> None:
        """Register and start an experiment."""
        async with self.control.change(SYSTEM) as change:
            await register(change, name, parse_design(spec))
        await gather_past(self.control.database, name, parse_design(spec), self.now)
        async with self.control.change(SYSTEM) as change:
            await start(change, name, environment="production")

    async def table(self, table: Any) -> list[dict[str, Any]]:
        """All rows of a table."""
        async with self.control.database.read() as connection:
            return [dict(row) for row in (await connection.execute(select(table))).mappings()]


def exchange(number: int, **changes: Any) -> Exchange:
    """An answered request of user u<number>."""
    base: dict[str, Any] = {
        "id": f"req_{number:06d}",
        "at": T0 + number / 100,
        "tenant": "a",
        "key": "key_1",
        "user": f"u{number}",
        "route": "bot",
        "model": "bot",
        "version": "bot:v1.0.0",
        "digest": "sha256:" + "0" * 64,
        "status": 200,
        "phases": Phases(1_000, 20_000, 50_000, 80_000_000, 400_000_000, 400_100_000),
        "usage": Usage(12, 30),
        "cost_nanousd": 1500,
        "stream": True,
    }
    return Exchange(**base | changes)


def feedback(number: int, **changes: Any) -> Observation:
    """Feedback on the request `number`."""
    base: dict[str, Any] = {
        "id": f"fb-{number}",
        "at": T0 + number / 100 + 1,
        "received": T0 + number / 100 + 1,
        "kind": "feedback",
        "tenant": "a",
        "request": f"req_{number:06d}",
        "success": True,
    }
    return Observation(**base | changes)


def assigned(entry: Any, numbers: Iterable[int], now: float, **changes: Any) -> list[Exchange]:
    """Exchanges of users `numbers`, each in the arm that a gateway gives it."""
    assigner = compile_experiment(entry)
    found = []
    for number in numbers:
        one = exchange(number, at=now, **changes)
        unit = unit_of(entry.unit, user=one.user, session="", key=one.key, request=one.id)
        arm, propensity, epoch = assigner.assign(unit, now)
        found.append(
            msgspec.structs.replace(
                one, experiment=entry.name, arm=arm.name, epoch=epoch, propensity=propensity, unit=unit
            )
        )
    return found
