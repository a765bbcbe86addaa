"""The engine's life: many at once, clients that leave, a full queue, a worker that dies, an end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.core.errors import Damaged, NotFound, Unavailable
from penstock.engine.lifted import lifted
from tests.engine.conftest import DEADLINE_S, Running, running_engine, until
from tests.engine.tiny_model import build

pytestmark = pytest.mark.engine

STARTER = Path("examples/support_bot/models/support-bot-v1.0.0/openvino-int8")


@pytest.fixture(scope="module")
def small(tiny: Path) -> Iterator[Running]:
    """An engine with two places and a queue of two."""
    with running_engine(tiny, max_running=2, max_waiting=2) as engine:
        engine.worker = worker_of(os.getpid())
        yield engine


@contextmanager
def stopped(engine: Running) -> Iterator[None]:
    """Its worker does nothing meanwhile, so that what was asked is not done before somebody looks."""
    os.kill(engine.worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine.worker, signal.SIGCONT)


@asynccontextmanager
async def client_of(engine: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=engine.url, timeout=DEADLINE_S) as client:
        yield client


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": "the order", "max_tokens": 20, "seed": 1, **fields}


async def ask(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/completions", json=body(**fields))


async def text(client: httpx.AsyncClient, **fields: Any) -> str:
    answer = await ask(client, **fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


async def eventually(engine: Running, name: str, value: float) -> None:
    await asyncio.to_thread(until, lambda: engine.metric(name) == value, f"{name} to be {value}")


LONG = {"prompt": "x" * 20, "max_tokens": 230, "ignore_eos": True}


async def test_neighbours_change_nothing(engine: Running) -> None:
    asks = [
        {
            "prompt": "the order " * (1 + i % 17),
            "seed": i,
            "temperature": (0, 0.7, 1.5)[i % 3],
            "max_tokens": 10 + 5 * (i % 9),
        }
        for i in range(36)
    ]
    async with client_of(engine) as client:
        alone = [await text(client, **fields) for fields in asks]
        beside = await asyncio.gather(*(text(client, **fields) for fields in asks))
    assert beside == alone


@pytest.mark.skipif(not STARTER.is_dir(), reason="the starter model has not been trained yet")
async def test_neighbours_change_nothing_with_the_starter_model_either() -> None:
    asks = [
        {
            "prompt": f"<|user|>where is order {i}12? " * (1 + i % 9) + "<|end|><|assistant|>",
            "seed": i,
            "temperature": i % 2,
        }
        for i in range(24)
    ]
    with running_engine(STARTER, "tiny") as engine:
        async with client_of(engine) as client:
            alone = [await text(client, **fields) for fields in asks]
            beside = await asyncio.gather(*(text(client, **fields) for fields in asks))
    assert beside == alone


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_work(small: Running, stream: bool) -> None:
    aborted = small.metric("vllm:request_success_total", finished_reason="abort")
    async with client_of(small) as client:
        with stopped(small):
            many = [asyncio.create_task(ask(client, **LONG, stream=stream, n=2)) for _ in range(2)]
            await eventually(small, "vllm:num_requests_waiting", 2)
            for task in many:
                task.cancel()
            await asyncio.wait(many)
    await eventually(small, "vllm:num_requests_running", 0)
    await eventually(small, "vllm:num_requests_waiting", 0)
    assert small.metric("vllm:request_success_total", finished_reason="abort") >= aborted + 2
    assert small.metric("vllm:kv_cache_usage_perc") == 0
    async with client_of(small) as client:
        assert await text(client)


async def test_a_full_queue_refuses_at_once(small: Running) -> None:
    async with client_of(small) as client:
        with stopped(small):
            holding = [asyncio.create_task(ask(client, **LONG)) for _ in range(4)]
            await eventually(small, "vllm:num_requests_waiting", 2)
            refused = await ask(client)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        answers = await asyncio.gather(*holding)
        assert [answer.status_code for answer in answers] == [200] * 4


async def test_a_worker_that_dies_is_replaced_and_nobody_is_told_done(tiny: Path) -> None:
    with running_engine(tiny, max_running=2, max_waiting=4) as engine:
        async with client_of(engine) as client:
            plain = asyncio.create_task(ask(client, **LONG))
            async with client.stream("POST", "/v1/completions", json=body(**LONG, stream=True)) as stream:
                lines = stream.aiter_lines()
                assert (await anext(lines)).startswith("data: {")
                worker = worker_of(os.getpid())
                os.kill(worker, signal.SIGSTOP)  # or it may be done before it is killed
                waiting = asyncio.create_task(ask(client))
                await eventually(engine, "vllm:num_requests_waiting", 1)
                os.kill(worker, signal.SIGKILL)
                rest = [line async for line in lines if line]
            assert stream.status_code == 200
            assert "data: [DONE]" not in rest
            assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "engine_failed"
            assert (await plain).status_code == 502
            assert (await plain).json()["error"]["code"] == "engine_failed"
            assert (await waiting).status_code == 503
            assert "retry-after" in (await waiting).headers
            if (ready := await client.get("/readyz")).status_code == 503:
                assert ready.json() == {"ready": False}
            assert (await client.get("/healthz")).status_code == 200
            await asyncio.to_thread(until, lambda: httpx.get(engine.url + "/readyz").status_code == 200, "a new worker")
            assert await text(client)
        assert engine.metric("penstock_engine_restarts_total") == 1


async def test_a_worker_that_hangs_over_its_work_is_replaced(tiny: Path) -> None:
    with running_engine(tiny, hang_s=1.2) as engine:
        async with client_of(engine) as client:
            os.kill(worker_of(os.getpid()), signal.SIGSTOP)
            broken = await ask(client)
            assert (broken.status_code, broken.json()["error"]["code"]) == (502, "engine_failed")
            await asyncio.to_thread(until, lambda: httpx.get(engine.url + "/readyz").status_code == 200, "a new worker")
            assert await text(client)
        assert engine.metric("penstock_engine_restarts_total") == 1


def worker_of(front: int) -> int:
    """The youngest worker of the process `front`."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command, stat = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
        except OSError:
            continue
        if b"penstock.engine.worker" in command and int(stat.rsplit(")", 1)[1].split()[1]) == front:
            found.append(int(folder.name))
    return max(found)


async def test_it_drains(tiny: Path) -> None:
    with running_engine(tiny) as engine:
        async with client_of(engine) as client:
            last = asyncio.create_task(ask(client, **LONG))
            await eventually(engine, "vllm:num_requests_running", 1)
            engine.begin_stop()
            assert (await last).status_code == 200
            assert (await last).json()["usage"]["completion_tokens"] == 230
        await asyncio.to_thread(until, engine.ended, "the engine to end")
        with pytest.raises(httpx.ConnectError):
            httpx.get(engine.url + "/healthz")


async def test_many_sequences_share_a_cache_that_is_too_small_for_all(tiny: Path) -> None:
    async def answers(engine: Running) -> list[str]:
        async with client_of(engine) as client:
            return await asyncio.gather(*(text(client, **{**LONG, "seed": i}) for i in range(16)))

    with running_engine(tiny, kv_cache_mb=1) as engine:
        cramped = await answers(engine)
    with running_engine(tiny, kv_cache_mb=64, prefix_cache=True) as engine:
        roomy = await answers(engine)
        assert sum(a == b for a, b in zip(roomy, cramped, strict=True)) >= 12, (
            "sums depend a little on what is computed beside them, which may change a draw"
        )
        assert all(cramped)
        assert engine.metric("vllm:prompt_tokens_total") == 16 * 21
        assert "prefix_cache" not in httpx.get(f"{engine.url}/metrics").text, (
            "it is not told what its cache gave, and does not say 0"
        )


async def test_a_model_without_a_template_cannot_chat(tmp_path: Path) -> None:
    with running_engine(build(tmp_path / "mute", template=False), None) as engine:
        async with client_of(engine) as client:
            refused = await client.post(
                "/v1/chat/completions", json={"model": "any", "messages": [{"role": "user", "content": "x"}]}
            )
            assert refused.status_code == 400
            assert refused.json()["error"]["code"] == "no_chat_template"
            answer = await ask(client, model="any")
            assert answer.json()["model"] == "mute"  # without a name to insist on, any is taken


async def test_paths_and_methods(engine: Running) -> None:
    async with client_of(engine) as client:
        assert (await client.get("/v1/chat/completions")).status_code == 405
        assert (await client.post("/healthz")).status_code == 405
        assert (await client.get("/nowhere")).json()["error"]["code"] == "not_found"
        assert (await client.get("/readyz")).json() == {"ready": True}
        assert (await client.post("/v1/completions", content=b"{")).json()["error"]["code"] == "invalid_json"


async def test_counters_count(engine: Running) -> None:
    names = (
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:e2e_request_latency_seconds_count",
        "vllm:time_to_first_token_seconds_count",
        "vllm:inter_token_latency_seconds_count",
    )
    before = [engine.metric(name) for name in names]
    async with client_of(engine) as client:
        usage = (await ask(client, ignore_eos=True)).json()["usage"]
    after = [engine.metric(name) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [usage["prompt_tokens"], 20, 1, 1, 19]


def test_what_cannot_be_loaded_says_so(tmp_path: Path, tiny: Path, engine: Running) -> None:
    with pytest.raises(NotFound, match="no folder"), running_engine(tmp_path / "nowhere"):
        pass
    broken = build(tmp_path / "broken")
    (broken / "openvino_model.xml").write_text("<net>")
    with pytest.raises(Damaged, match="cannot be loaded"), running_engine(broken):
        pass
    port = int(engine.url.rsplit(":", 1)[1])
    with pytest.raises(Unavailable, match=str(port)):
        Running().start(tiny, "tiny", on_port(port))


def on_port(port: int) -> Any:
    from penstock.core.settings import EngineSettings

    return EngineSettings(port=port)


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
async def test_penalties_do_not_depend_on_the_sign_of_logits(tmp_path: Path, penalty: str) -> None:
    said = []
    for shift in (-30.0, 30.0):
        with running_engine(build(tmp_path / f"shifted{shift}", shift=shift), "tiny") as engine:
            async with client_of(engine) as client:
                fields = {"temperature": 0, "max_tokens": 100, "ignore_eos": True, penalty: 1.5}
                said.append(await text(client, **fields))
    assert said[0] == said[1]


def test_a_model_too_large_to_be_written_again_is_served_without_penalties(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.engine.lifted.LARGEST", 1)
    with lifted(tiny) as folder:
        assert folder is None


def test_a_worker_does_not_outlive_its_front(tiny: Path) -> None:
    program = (
        "import asyncio, sys, pathlib; from penstock.core.settings import EngineSettings;"
        "from penstock.engine.serve import serve_engine;"
        "asyncio.run(serve_engine(directory=pathlib.Path(sys.argv[1]), model=None, settings=EngineSettings(port=0, threads=1),"
        "started=lambda url: print(url, flush=True)))"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tiny)], stdout=subprocess.PIPE, text=True) as front:
        assert front.stdout is not None
        assert front.stdout.readline().startswith("http://")
        worker = Path("/proc") / str(worker_of(front.pid))
        front.kill()
    until(lambda: not worker.exists() or ") Z " in (worker / "stat").read_text(), "the worker to end")
