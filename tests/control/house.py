"""A control plane in process: real stores, the app over ASGI, and a runtime whose replicas are real HTTP servers."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from penstock.control.app import build_app
from penstock.control.bootstrap import bootstrap
from penstock.control.content.opened import Contents
from penstock.control.context import Control
from penstock.control.deploy.publisher import Publisher
from penstock.control.deploy.reconcile import Reconciler
from penstock.control.experiments.kind import ExperimentKind
from penstock.control.experiments.life import active_experiments
from penstock.control.gates.examinations import examinations_router
from penstock.control.public import public_routers
from penstock.control.readiness import Readiness
from penstock.control.versions.build_claims import build_claims_router
from penstock.control.versions.builds import Builds
from penstock.control.versions.signatures import sealing_under
from penstock.core.digests import sha256_digest
from penstock.core.settings import Settings, WebhookSettings
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.masterkey import Wrapping
from penstock.runtime.port import ReplicaSpec, RunningReplica
from penstock.store.blobs import open_blobs
from penstock.store.sql import Database

TOKEN = "the-service-token"


class LocalServers:
    """A runtime whose replicas are HTTP servers in this process; each is ready once its directory was there and `hold` is not set."""

    def __init__(self) -> None:
        self.servers: dict[str, tuple[asyncio.Server, str]] = {}
        self.specs: dict[str, ReplicaSpec] = {}
        self.hold = False  # replicas start, but are not ready
        self.held: set[str] = set()  # ids of replicas that are not ready
        self.broken = False  # replicas that start from now on die
        self.dead: set[str] = set()
        self.stopped: list[str] = []

    async def start(self, replica: ReplicaSpec) -> RunningReplica:
        assert (Path(replica.directory) / "openvino_model.xml").is_file()
        if replica.id not in self.servers:
            if self.broken:
                self.dead.add(replica.id)
            server = await asyncio.start_server(partial(self._answer, replica.id), "127.0.0.1", 0)
            self.servers[replica.id] = (server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            self.specs[replica.id] = replica
        return self._running(replica.id)

    async def stop(self, replica_id: str, *, drain_s: float) -> None:
        known = self.servers.pop(replica_id, None)
        if known is not None:
            known[0].close()
            self.stopped.append(replica_id)

    async def list(self) -> tuple[RunningReplica, ...]:
        return tuple(self._running(identity) for identity in self.servers)

    def _running(self, identity: str) -> RunningReplica:
        return RunningReplica(
            id=identity,
            url=self.servers[identity][1],
            pid=os.getpid(),
            state="failed" if identity in self.dead else "running",
        )

    async def _answer(self, replica: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = b"503 Not Ready" if self.hold or replica in self.held else b"200 OK"
        writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async def close(self) -> None:
        for server, _ in self.servers.values():
            server.close()


class House:
    """The parts, and shortcuts for what tests do all the time."""

    def __init__(self, control: Control, publisher: Publisher, app: FastAPI, readiness: Readiness) -> None:
        self.control = control
        self.publisher = publisher
        self.app = app
        self.readiness = readiness
        self.runtime = LocalServers()
        self.reconciler = Reconciler(control, publisher, self.runtime, readiness, drain_s=1.0)
        self.admin = self.client((control.data / "admin.key").read_text().strip())

    def client(self, key: str | None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key}"} if key is not None else {}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app), base_url="http://control", headers=headers, timeout=60
        )

    async def post(self, path: str, body: Any = None, status: int = 201) -> Any:
        response = await self.admin.post(f"/api/v1{path}", json=body)
        assert response.status_code == status, response.text
        return response.json()

    async def get(self, path: str, status: int = 200) -> Any:
        response = await self.admin.get(f"/api/v1{path}")
        assert response.status_code == status, response.text
        return response.json()

    async def push(self, model: str, label: str, files: dict[str, bytes] | None = None, key: str | None = None) -> Any:
        """Push a version as a client does; gives what the commit answered."""
        content = files if files is not None else version_files(f"{model}:{label}")
        upload = await self.post(
            f"/models/{model}/uploads",
            {
                "label": label,
                "files": {p: {"digest": sha256_digest(b), "size": len(b)} for p, b in content.items()},
                "idempotency_key": key or f"{model}:{label}",
            },
        )
        by_digest = {sha256_digest(data): data for data in content.values()}
        for digest in upload["missing"]:
            response = await self.admin.put(f"/api/v1/blobs/{digest}", content=by_digest[digest])
            assert response.status_code == 201, response.text
        return await self.post(f"/uploads/{upload['id']}/commit", status=200)


def safetensors(**tensors: bytes) -> bytes:
    """A file of tensors of bytes."""
    header: dict[str, Any] = {}
    at = 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(tensors.values())


def version_files(text: str) -> dict[str, bytes]:
    """Small stand-ins for the files of a version."""
    return {
        "README.md": b"---\nlicense: apache-2.0\n---\n# " + text.encode(),
        "safetensors/model.safetensors": safetensors(words=text.encode() * 10, rest=bytes(8)),
        "safetensors/config.json": b"{}",
        "openvino-int8/openvino_model.xml": b"<net/>" + text.encode(),
        "openvino-int8/openvino_model.bin": bytes(range(200)) + text.encode(),
        "openvino-int8/tokenizer.json": b"{}",
    }


@asynccontextmanager
async def running_house(
    database: Database,
    data: Path,
    *,
    clock: Callable[[], float],
    starter: Path | None = None,
    webhooks: WebhookSettings | None = None,
) -> AsyncIterator[House]:
    """A house whose publisher and reconcile loop run."""
    control = Control(
        settings=Settings(data=str(data), webhooks=webhooks or WebhookSettings()),
        data=data,
        database=database,
        blobs=open_blobs("", data / "blobs", database),
        service_token=TOKEN,
        clock=clock,
        entropy=os.urandom,
    )
    control.sealing = sealing_under(bytes(range(32)))
    publisher = Publisher(control, active_experiments=active_experiments)
    readiness = Readiness("replicas")
    keys = FileKeystore.open(data / "keys", Wrapping(bytes(32)))
    contents = Contents(control, keys)
    builds = Builds(control)
    routers = (
        *public_routers(control, contents, keys, None, readiness, dict, None),
        examinations_router(control, builds),
        build_claims_router(control, builds),
    )
    app = build_app(control, publisher, readiness, routers=routers, kinds=(ExperimentKind(),))
    await bootstrap(control, starter=starter)
    house = House(control, publisher, app, readiness)
    tasks = [asyncio.create_task(publisher.run()), asyncio.create_task(house.reconciler.run())]
    try:
        yield house
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await house.admin.aclose()
        await house.runtime.close()


async def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def apply(house: House, text: str, status: int = 200) -> Any:
    """What came of YAML documents; the answer must have `status`."""
    response = await house.admin.post(
        "/api/v1/apply", content=text.encode(), headers={"content-type": "application/yaml"}
    )
    assert response.status_code == status, response.text
    return response.json()
