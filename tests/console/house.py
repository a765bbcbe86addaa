"""A control plane with the console in it, as one process has them: real SQLite, a real port, seeded through the API."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import uvicorn

from penstock.console.app import build_console
from penstock.control.api.content import content_router
from penstock.control.api.diagnosis import diagnosis_router
from penstock.control.api.evaluators import evaluators_router
from penstock.control.api.experiments import experiments_router
from penstock.control.api.statistics import statistics_router
from penstock.control.app import build_app
from penstock.control.content.opened import Contents
from penstock.control.context import SYSTEM, Control
from penstock.control.deploy.publisher import Publisher
from penstock.control.deploy.record import go_live
from penstock.control.experiments.evaluate import Evaluator
from penstock.control.experiments.kind import ExperimentKind
from penstock.control.experiments.life import active_experiments
from penstock.control.experiments.signal import Signal
from penstock.control.figures.explorer import Explorer
from penstock.control.figures.statements import Statements
from penstock.control.ingest.reader import ingest_router
from penstock.control.keys import create_key
from penstock.control.people import create_principal
from penstock.control.readiness import Readiness
from penstock.control.specs.resources import KeySpec
from penstock.core.exchange import Exchange, Finding, Observation, Phases, Record, Usage
from penstock.core.settings import Settings
from penstock.experiments.assignment import compile_experiment
from penstock.journal.format import encode_frame
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.masterkey import Wrapping
from penstock.store.blobs import open_blobs
from penstock.store.sql import open_database
from tests.console.fake_gateway import HEADERS, KEY
from tests.control.house import safetensors
from tests.databases import furnished

T = TypeVar("T")
ADMIN = "pk-the-admins-key"
ANALYST = "pk-the-analysts-key"
SECRET = b"a secret of the control processes"
CARD = """---
license: apache-2.0
---
# support-bot

Answers questions of customers of a **fictional shop**. See [the source](https://example.org/x).

| Measure | Value | 95 % interval |
|---|---:|---|
| In-scope answers right | 84.1 % | 79.0 to 88.2 |

## Known limits

- English alone.
"""
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
AB: dict[str, Any] = {
    "strategy": "ab",
    "route": "support-bot",
    "hypothesis": "v1.1.0 answers more customers' questions right than v1.0.0",
    "arms": [
        {"name": "control", "build": "support-bot:v1.0.0", "weight": 0.5},
        {"name": "treatment", "build": "support-bot:v1.1.0", "weight": 0.5},
    ],
    "primary": {"metric": "success", "minimum_effect": 0.05},
    "guardrails": [{"metric": "error_rate"}, {"metric": "latency"}],
    "plan": {"units": 400},
}
WARMTH: dict[str, Any] = AB | {
    "route": "echo",
    "hypothesis": f"A higher temperature pleases {HOSTILE}",
    "arms": [{"name": "cold", "pool": "echo"}, {"name": "warm", "pool": "echo", "params": {"temperature": 0.9}}],
    "control": "cold",
    "primary": {"metric": "rating", "minimum_effect": 0.2},
    "guardrails": [],
    "bayes": {},
    "plan": {"units": 60, "inference": "group_sequential", "looks": 4},
}


class House:
    """The running process. `url` is where it answers; `ahead` is how far its clock is from ours, in seconds."""

    def __init__(self, data: Path, gateway_url: str) -> None:
        self.url = ""
        self.ahead = 0.0
        self.stopping = False
        self._data = data
        self._gateway_url = gateway_url
        self._loop = asyncio.new_event_loop()
        self._server: uvicorn.Server | None = None
        self._offset = 64
        self._count = 0
        self.http = httpx.Client(timeout=60)
        self.keys = FileKeystore.open(data / "keys", Wrapping(bytes(32)))

    def clock(self) -> float:
        return time.time() + self.ahead

    def _entropy(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_128(self._count.to_bytes(8, "big")).digest(size)

    async def _run(self) -> None:
        database = await open_database(furnished(self._data / "penstock.db"))
        self.control = Control(
            settings=Settings(),
            data=self._data,
            database=database,
            blobs=open_blobs("", self._data / "blobs", database),
            service_token="service",
            clock=self.clock,
            entropy=self._entropy,
        )
        self.publisher = Publisher(self.control, active_experiments=active_experiments)
        signal = Signal()
        self.evaluator = Evaluator(self.control, signal)
        app = build_app(
            self.control,
            self.publisher,
            (readiness := Readiness()),
            routers=(
                experiments_router(),
                statistics_router(Explorer(self.control, Statements(self.control.settings, self._data / "analytics"))),
                evaluators_router(dict),
                content_router(Contents(self.control, self.keys)),
                ingest_router(signal),
                diagnosis_router(readiness, None),
            ),
            kinds=(ExperimentKind(),),
        )
        async with (
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as api,
            httpx.AsyncClient() as gateway,
        ):
            console = build_console(
                api=api,
                gateway=gateway,
                gateway_url=self._gateway_url,
                secret=SECRET,
                playground_key=lambda: KEY,
                stopping=lambda: self.stopping,
                clock=self.clock,
            )
            app.mount("/", console)
            config = uvicorn.Config(
                app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=1, ws="none"
            )
            self._server = uvicorn.Server(config)
            await self._server.serve()
        await database.close()

    @contextmanager
    def running(self) -> Iterator["House"]:
        """Up while the block runs."""
        thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        while self._server is None or not self._server.started:
            assert thread.is_alive(), "the house ended at its start"
            assert time.monotonic() < deadline, "the house did not start"
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        self.do(self._first_keys())
        try:
            yield self
        finally:
            self.stopping = True
            self._server.should_exit = True
            thread.join(timeout=30)
            self._loop.close()
            self.http.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the process."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _first_keys(self) -> None:
        async with self.control.change(SYSTEM) as change:
            for name, text in (("admin", ADMIN), ("analyst", ANALYST)):
                await create_principal(change, name, (name,))
                await create_key(change, name, KeySpec.model_validate({"principal": name}), text=text)
        await self.publisher.refresh()

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """A call of the public API by the administrator, which must succeed."""
        reply = self.http.request(
            method, f"{self.url}/api/v1{path}", json=body, params=query, headers={"authorization": f"Bearer {ADMIN}"}
        )
        assert reply.is_success, f"{method} {path}: {reply.status_code} {reply.text}"
        return reply.json() if reply.content else None

    def push(self, label: str, card: str = CARD, metadata: dict[str, Any] | None = None) -> None:
        """Push a small version of support-bot."""
        files = {
            "README.md": card.encode(),
            "config.json": b"{}",
            "model.safetensors": safetensors(weights=b"weights of " + label.encode() * 1000),
            "openvino-int8/openvino_model.bin": b"int8 of " + label.encode() * 400,
            "openvino-int8/openvino_model.xml": b"<net/>",
        }
        digests = {path: "sha256:" + hashlib.sha256(data).hexdigest() for path, data in files.items()}
        upload = self.call(
            "POST",
            "/models/support-bot/uploads",
            {
                "label": label,
                "files": {path: {"digest": digests[path], "size": len(data)} for path, data in files.items()},
                "metadata": metadata or {"hyperparameters": {"steps": 12_000, "seed": 7}},
                "idempotency_key": label,
            },
        )
        for path, data in files.items():
            if digests[path] in upload["missing"]:
                reply = self.http.put(
                    f"{self.url}/api/v1/blobs/{digests[path]}",
                    content=data,
                    headers={"authorization": f"Bearer {ADMIN}"},
                )
                assert reply.is_success, reply.text
        self.call("POST", f"/uploads/{upload['id']}/commit")

    def promote(self, label: str, environment: str = "production", reason: str = "passed the evaluation") -> None:
        """Promote, and let it go live."""
        told = self.call(
            "POST", "/promote", {"model": "support-bot", "label": label, "environment": environment, "reason": reason}
        )
        self.do(self._live(told["id"]))

    async def _live(self, revision: str) -> None:
        async with self.control.change(SYSTEM) as change:
            await go_live(change, revision, own_environment=self.control.settings.control.environment)
        await self.publisher.refresh()

    def ingest(self, records: list[Record]) -> None:
        """Send a batch as the shipper does."""
        body = b"".join(encode_frame(record) for record in records)
        end = self._offset + len(body)
        reply = self.http.post(
            f"{self.url}/internal/v1/ingest",
            params={"source": "gateway-0", "segment": 1, "start": self._offset, "end": end},
            content=body,
            headers={"authorization": "Bearer service"},
        )
        assert reply.is_success, reply.text
        self._offset = end

    def report(self, worker: str, generation: int) -> None:
        """A gateway worker tells its generation."""
        self.http.post(
            f"{self.url}/internal/v1/report",
            json={"worker": worker, "pid": 11, "generation": generation},
            headers={"authorization": "Bearer service"},
        ).raise_for_status()

    def traffic(self, experiment: str, numbers: range, *, rates: dict[str, float], rated: bool = False) -> None:
        """Requests of users `numbers`, assigned as gateways do, with feedback on each; then one round of evaluation."""
        self.do(self._traffic(experiment, numbers, rates, rated))

    async def _traffic(self, experiment: str, numbers: range, rates: dict[str, float], rated: bool) -> None:
        async with self.control.database.read() as connection:
            active = [one.entry for one in await active_experiments(connection) if one.entry.name == experiment]
        assigner, now = compile_experiment(active[0]), self.clock()
        records: list[Record] = []
        for number in numbers:
            arm, propensity, epoch = assigner.assign(f"u{number}", now)
            one = exchange(number, now - (numbers.stop - number) * 0.5)
            new = arm.name == "treatment"
            one = msgspec.structs.replace(
                one,
                experiment=experiment,
                route=active[0].name.partition("-")[0] if rated else "support-bot",
                arm=arm.name,
                epoch=epoch,
                propensity=propensity,
                unit=f"u{number}",
                version="" if rated else f"support-bot:{'v1.1.0' if new else 'v1.0.0'}",
            )
            records.append(one)
            good = (number * 7919 % 1000) / 1000 < rates[arm.name]
            told = {"rating": 1.0 if good else 0.0} if rated else {"success": good}
            records.append(
                Observation(
                    id=f"f{number}",
                    at=now,
                    received=now,
                    kind="feedback",
                    tenant="demo",
                    request=one.id,
                    **told,
                )
            )
        await asyncio.get_running_loop().run_in_executor(None, self.ingest, records)
        await self.evaluator.round()
        await self.publisher.refresh()


def exchange(number: int, at: float, **changes: Any) -> Exchange:
    """An answered request of user u<number>; some of every outcome."""
    outcome = "ok" if number % 40 else ("refused", "cancelled", "error")[number // 40 % 3]
    first = 25_000_000 + number * 104_729 % 30_000_000
    last = first + number * 611_953 % 300_000_000
    base: dict[str, Any] = {
        "id": f"req_01hv{number:022d}",
        "at": at,
        "worker": "gateway-0",
        "tenant": "demo",
        "key": "key_demo",
        "user": f"{number * 2654435761 % 2**40:010x}",
        "route": "support-bot",
        "model": "support-bot",
        "pool": "support-bot-int8",
        "replica": "r1",
        "version": "support-bot:v1.1.0",
        "digest": "sha256:" + "ab" * 32,
        "stream": number % 2 == 0,
        "status": {"refused": 429, "error": 502}.get(outcome, 200),
        "outcome": outcome,
        "error": {"refused": "rate_limit_exceeded", "error": "upstream_failed"}.get(outcome, ""),
        "finish": "stop" if outcome == "ok" else "",
        "phases": Phases(61_000, 402_000, 510_000, first, last, last + 90_000),
        "usage": Usage(prompt=34, completion=27, cached=8),
        "chunks": 27,
        "cost_nanousd": 12_200,
        "cache": "hit" if number % 13 == 5 else "miss",
        "findings": (Finding(rule="cards", action="mask", where="input", count=2),) if number % 5 == 0 else (),
        "trace": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "generation": 4,
    }
    return Exchange(**base | changes)


def furnish(house: House) -> None:
    """What a house looks like after some weeks."""
    house.ahead = -7 * 86400.0
    for name in ("dev", "staging", "production"):
        house.call(
            "PUT", f"/environments/{name}", {"name": name, "spec": {"serve": False} if name != "production" else {}}
        )
    house.call("POST", "/tenants", {"name": "demo", "spec": {"limits": {"requests_per_minute": 6000}}})
    house.call("POST", "/keys", {"name": "demo", "tenant": "demo", "limits": {"requests_per_minute": 600}})
    old = house.call("POST", "/keys", {"name": "old-website", "tenant": "demo", "models": ["support-bot"]})
    house.call("POST", f"/keys/{old['id']}/revoke")
    house.call("POST", "/pools", {"name": "echo", "spec": {"adopt": ["http://127.0.0.1:9"]}})
    house.call("POST", "/routes", {"name": "echo", "spec": {"to": [{"pool": "echo"}]}})
    house.call("POST", "/datasets", {"name": "talks", "spec": {"digest": "sha256:" + "1" * 64, "source": HOSTILE}})
    house.push("v1.0.0", metadata={"training": {"data": [{"dataset": "talks"}]}, "hyperparameters": {"seed": 7}})
    house.promote("v1.0.0", "staging")
    house.promote("v1.0.0")
    house.ahead = -86400.0
    house.push(
        "v1.1.0",
        CARD + HOSTILE,
        {
            "annotations": {"note": HOSTILE},
            "hyperparameters": {"steps": 12_000},
            "lineage": [
                {"relation": "fine_tuned_from", "version": "support-bot:v1.0.0"},
                {"relation": "merged_from", "external": HOSTILE},
            ],
        },
    )
    house.call("PUT", "/models/support-bot", {"description": f"Customer service of a fictional shop {HOSTILE}"})
    house.promote("v1.1.0", reason=HOSTILE)
    house.ahead = -840.0
    for name, spec in (("echo-warmth", WARMTH), ("support-bot-1-1", AB), ("support-bot-draft", AB)):
        house.call("POST", "/experiments", {"name": name, "spec": spec})
    house.call("POST", "/experiments/support-bot-1-1/start")
    house.call("POST", "/experiments/echo-warmth/start")
    for turn in range(14):
        house.ahead = -840.0 + turn * 60
        if house.call("GET", "/experiments/support-bot-1-1")["state"] == "running":
            house.traffic(
                "support-bot-1-1", range(turn * 80, turn * 80 + 80), rates={"control": 0.64, "treatment": 0.81}
            )
    house.ahead = 0.0
    house.traffic("echo-warmth", range(100_000, 100_060), rates={"cold": 0.5, "warm": 0.55}, rated=True)
    now = house.clock()
    hostile = exchange(200_000, now - 3, model=HOSTILE, error=HOSTILE, finish=HOSTILE, trace=HOSTILE, outcome="error")
    played = exchange(200_001, now - 2, id=HEADERS["x-penstock-request-id"])
    said = Observation(
        id="r1", at=now, received=now, kind="report", tenant="demo", request=hostile.id, name=HOSTILE, text=HOSTILE
    )
    house.ingest([hostile, played, said])
    house.report("gateway-0", 4)
    house.report("gateway-1", 3)
