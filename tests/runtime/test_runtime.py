"""What every `Runtime` promises; run over each implementation."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.core.errors import Conflict, Unavailable
from penstock.core.settings import EngineSettings, Settings
from penstock.net.server import Server
from penstock.runtime.local import LocalRuntime
from penstock.runtime.port import ReplicaSpec, RunningReplica
from penstock.supervisor.api import SupervisorApi
from penstock.supervisor.folder import DataFolder
from penstock.supervisor.health import status_of
from penstock.supervisor.house import House
from penstock.supervisor.keeper import Keeper
from penstock.supervisor.logs import Logs
from penstock.supervisor.procfs import Handle
from penstock.supervisor.records import Records
from penstock.supervisor.supervisor import Supervisor

PATIENCE_S = 60.0
# Stands for `penstock`: `engine DIRECTORY --port PORT --model NAME ...`, and answers everything with 200.
_ENGINE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = sys.argv[2].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[4])), Handler).serve_forever()
"""


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[LocalRuntime]:
    folder = DataFolder(tmp_path / "d")
    folder.prepare()
    records, logs = Records(folder.run), Logs(folder.logs)
    keeper = Keeper(records, logs, {})
    house = House(
        program=(sys.executable, "-I", "-c", _ENGINE),
        data=folder.root,
        settings=Settings(engine=EngineSettings(port=18090)),
        environment="",
    )
    server = Server(SupervisorApi(Supervisor(house, records=records, logs=logs, keeper=keeper)))
    await server.start(unix=folder.supervisor_socket)
    made = LocalRuntime(folder.supervisor_socket)
    yield made
    for replica in await made.list():
        await made.stop(replica.id, drain_s=0.0)
    await made.close()
    await server.drain(1.0)


async def running(runtime: LocalRuntime, replica_id: str, *, not_pid: int = 0) -> RunningReplica:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for replica in await runtime.list():
                if replica.id == replica_id and replica.state == "running" and replica.pid != not_pid:
                    return replica
            await asyncio.sleep(0.02)


async def test_a_replica_is_started_and_answers(runtime: LocalRuntime) -> None:
    assert await runtime.list() == ()
    started = await runtime.start(ReplicaSpec(id="bot-0", directory="/models/a", model="bot:v1"))
    assert (await running(runtime, "bot-0")).url == started.url
    assert await status_of(f"{started.url}/healthz") == 200


async def test_starting_twice_is_no_second_start(runtime: LocalRuntime) -> None:
    spec = ReplicaSpec(id="bot:v1/int8-0", directory="/models/a", model="bot:v1")
    first = await runtime.start(spec)
    assert (await runtime.start(spec)).pid == first.pid
    assert len(await runtime.list()) == 1


async def test_one_id_runs_one_thing(runtime: LocalRuntime) -> None:
    await runtime.start(ReplicaSpec(id="bot-0", directory="/models/a", model="bot:v1"))
    with pytest.raises(Conflict, match="stop it first"):
        await runtime.start(ReplicaSpec(id="bot-0", directory="/models/b", model="bot:v1"))


async def test_replicas_have_ports_of_their_own(runtime: LocalRuntime) -> None:
    urls = {
        (await runtime.start(ReplicaSpec(id=f"bot-{n}", directory="/models/a", model="bot:v1"))).url for n in range(3)
    }
    assert len(urls) == 3


async def test_a_killed_replica_is_back_at_its_address(runtime: LocalRuntime) -> None:
    await runtime.start(ReplicaSpec(id="bot-0", directory="/models/a", model="bot:v1"))
    before = await running(runtime, "bot-0")
    handle = Handle.open(before.pid)
    assert handle is not None
    handle.send(signal.SIGKILL)
    handle.close()
    after = await running(runtime, "bot-0", not_pid=before.pid)
    assert (after.url, after.restarts) == (before.url, 1)


async def test_a_stopped_replica_is_gone(runtime: LocalRuntime) -> None:
    started = await runtime.start(ReplicaSpec(id="bot-0", directory="/models/a", model="bot:v1"))
    await runtime.stop("bot-0", drain_s=10.0)
    assert await runtime.list() == ()
    assert Handle.open(started.pid) is None


async def test_stopping_what_is_not_there_is_no_error(runtime: LocalRuntime) -> None:
    await runtime.stop("nobody-0", drain_s=1.0)


async def test_a_supervisor_that_is_away_is_unavailable(tmp_path: Path) -> None:
    away = LocalRuntime(tmp_path / "nothing.sock")
    with pytest.raises(Unavailable, match="does not answer"):
        await away.list()
    await away.close()
