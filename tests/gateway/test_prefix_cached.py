"""What engines found in their prefix caches, from their usage to the record and the metrics."""

import json
from pathlib import Path

import pytest

from penstock.net.server import Reply, Request, Server
from tests.gateway.house import running
from tests.gateway.mock_upstream import chunk, usage_chunk, whole
from tests.gateway.raw_client import ask, chat

USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 2,
    "total_tokens": 102,
    "prompt_tokens_details": {"cached_tokens": 64},
}


async def answer(request: Request, reply: Reply) -> None:
    if not json.loads(request.body).get("stream"):
        reply.send(200, ((b"content-type", b"application/json"),), whole("hi", USAGE))
        return
    reply.start(200, ((b"content-type", b"text/event-stream"),))
    for piece in (chunk("hi"), chunk(None, "stop"), usage_chunk(USAGE)):  # type: ignore[arg-type]
        reply.write(piece)
    reply.end(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_that_were_found_are_recorded_and_counted(tmp_path: Path, stream: bool) -> None:
    upstream = Server(answer)
    await upstream.start("127.0.0.1", 0)
    async with running(tmp_path, replicas=0, others=(f"http://127.0.0.1:{upstream.port}",)) as house:
        for _ in range(2):
            assert (await ask(house.port, chat("hello", stream=stream))).status == 200
        assert [one.usage.cached for one in house.exchanges()] == [64, 64]
        got = await ask(house.port, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b'penstock_prefix_cached_tokens_total{arm="",route="mock",worker="w0"} 128.0' in got.body
    await upstream.drain(1.0)
