"""A control process as it is served: the first start, the next one, and what it refuses to start with."""

import asyncio
import os
import signal
import socket
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from penstock.control.serve import serve_control
from penstock.core.errors import Damaged, Unavailable
from penstock.core.settings import ControlSettings, KeySettings, Settings
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.masterkey import Wrapping
from tests.control.house import TOKEN, LocalServers, version_files


def make_starter(folder: Path) -> Path:
    for label in ("v1.0.0", "v1.1.0", "v1.0.1-rc.1"):
        for path, content in version_files(f"support-bot:{label}").items():
            file = folder / f"support-bot-{label}" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    (folder / "notes").mkdir()
    (folder / "README.md").write_text("not a version")
    (folder / "prices.yaml").write_text("support-bot:v1.1.0: {prompt: 0.5}\n")
    return folder


async def serve(
    data: Path,
    runtime: LocalServers,
    *,
    starter: Path | None,
    url: asyncio.Future[str],
    database: str = "",
    port: int = 0,
    shared: bool = False,
) -> None:
    async with httpx.AsyncClient() as gateway:  # nobody asks
        await serve_control(
            settings=Settings(
                data=str(data), control=ControlSettings(port=port, database=database), keys=KeySettings(shared=shared)
            ),
            data=data,
            service_token=TOKEN,
            gateway=gateway,
            keys=FileKeystore.open(data / "keys", Wrapping(bytes(32))),
            runtime=runtime,
            starter=starter,
            clock=time.time,
            started=url.set_result,
        )


@asynccontextmanager
async def served(
    data: Path, runtime: LocalServers, *, starter: Path | None, database: str = "", shared: bool = False
) -> AsyncIterator[httpx.AsyncClient]:
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(data, runtime, starter=starter, url=url, database=database, shared=shared))
    waiting: set[asyncio.Future[str] | asyncio.Task[None]] = {task, url}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    async with httpx.AsyncClient(base_url=await url, timeout=30) as client:
        try:
            yield client
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60):
        while True:
            answer = await client.get("/readyz")
            if answer.status_code == 200:
                return
            assert answer.json()["missing"]
            await asyncio.sleep(0.05)


async def test_the_first_start_registers_promotes_and_writes_keys_and_the_next_resumes(
    empty_database_url: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    starter = make_starter(tmp_path / "models")
    runtime = LocalServers()
    async with served(data, runtime, starter=starter, database=empty_database_url) as client:
        await ready(client)
        assert (await client.get("/healthz")).status_code == 200
        for name in ("admin.key", "demo.key"):
            assert stat.S_IMODE((data / name).stat().st_mode) == 0o600
        key = (data / "admin.key").read_text().strip()
        client.headers["authorization"] = f"Bearer {key}"
        versions = (await client.get("/api/v1/models/support-bot/versions")).json()
        assert {v["label"] for v in versions} == {"v1.0.0", "v1.1.0", "v1.0.1-rc.1"}
        [deployment] = (await client.get("/api/v1/deployments")).json()
        assert (deployment["label"], deployment["environment"], deployment["state"]) == ("v1.1.0", "production", "live")
        assert [t["name"] for t in (await client.get("/api/v1/tenants")).json()] == ["demo"]
        token = {"authorization": f"Bearer {TOKEN}"}
        snapshot = (await client.get("/internal/v1/snapshot", headers=token)).json()["snapshot"]
        assert [k["tenant"] for k in snapshot["keys"]] == ["demo"]
        assert [r["name"] for r in snapshot["routes"]] == ["support-bot"]
        assert [p["price"] for p in snapshot["pools"] if p["name"] == "support-bot-v1.1.0-int8"] == [
            {"prompt": 0.5, "completion": 0.0}
        ]
        audit = len((await client.get("/api/v1/audit")).json())
    async with served(data, runtime, starter=starter, database=empty_database_url) as client:
        await ready(client)
        client.headers["authorization"] = f"Bearer {key}"
        assert len((await client.get("/api/v1/models/support-bot/versions")).json()) == 3
        assert len((await client.get("/api/v1/audit")).json()) == audit
        assert (data / "admin.key").read_text().strip() == key
    await runtime.close()


async def test_an_empty_house_has_neither_models_nor_tenants(tmp_path: Path) -> None:
    runtime = LocalServers()
    async with served(tmp_path, runtime, starter=None) as client:
        await ready(client)
        client.headers["authorization"] = f"Bearer {(tmp_path / 'admin.key').read_text().strip()}"
        assert (await client.get("/api/v1/models")).json() == []
        assert (await client.get("/api/v1/tenants")).json() == []
        assert not (tmp_path / "demo.key").exists()


async def test_those_who_wait_for_a_snapshot_do_not_hold_up_the_end(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    runtime = LocalServers()
    passed_on: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: passed_on.append(number))
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL) and None)
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(tmp_path, runtime, starter=None, url=url))
    async with httpx.AsyncClient(base_url=await url, timeout=30) as client:
        await ready(client)
        token = {"authorization": f"Bearer {TOKEN}"}
        generation = (await client.get("/internal/v1/snapshot", headers=token)).json()["snapshot"]["generation"]
        waiting = asyncio.create_task(client.get(f"/internal/v1/snapshot?after={generation}&wait=30", headers=token))
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)  # uvicorn hands it on to the handler that stood before, once it has ended
        assert (await waiting).status_code == 204
        await task
        assert time.monotonic() - begun < 20  # they would wait for 30 s
        assert passed_on == [signal.SIGTERM]


async def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        with pytest.raises(Unavailable, match="cannot listen"):
            await serve(tmp_path, LocalServers(), starter=None, url=url, port=taken.getsockname()[1])


async def test_damaged_files_are_told(tmp_path: Path) -> None:
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    (tmp_path / "penstock.db").write_bytes(b"no database" * 1000)
    with pytest.raises(Unavailable, match="not a database"):
        await serve(tmp_path, LocalServers(), starter=None, url=url)
    (tmp_path / "penstock.db").unlink()
    (tmp_path / "admin.key").write_text("")
    with pytest.raises(Damaged, match=r"admin\.key"):
        await serve(tmp_path, LocalServers(), starter=None, url=url)
