"""Paths, methods, bodies: each mistake gets an error in OpenAI's shape, and none a 500."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from tests.gateway.house import KEY, running
from tests.gateway.raw_client import ask, chat, post, read_reply

GOOD = b'{"model":"mock","messages":[{"role":"user","content":"hi"}]}'


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"null", "invalid_json"),
        (b"{}", "missing_required_parameter"),
        (b'{"model":"mock"}', "missing_required_parameter"),
        (GOOD[:-1] + b',"x":NaN}', "invalid_json"),
        (GOOD[:-1] + b',"temperature":NaN}', "invalid_json"),
        (GOOD[:-1] + b',"x":"\xff"}', "invalid_json"),
        (GOOD[:-1] + b',"x":"\\ud800"' + b'"}', "invalid_json"),
        (GOOD[:-1] + b',"model":"other"}', "duplicate_field"),
        (GOOD[:-1] + b',"mod\\u0065l":"other"}', "duplicate_field"),
        (GOOD[:-1] + b',"x":{"a":1,"a":2}}', "duplicate_field"),
        (b'{"model":"mock","messages":[{"role":"user","content":"a","content":"b"}]}', "duplicate_field"),
        (GOOD[:-1] + b',"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "invalid_json"),
        (GOOD[:-1] + b',"x":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}", "invalid_json"),
        (GOOD + b"{}", "invalid_json"),
        (b"\xef\xbb\xbf" + GOOD, "invalid_json"),
    ],
)
async def test_bad_bodies(tmp_path: Path, body: bytes, code: str) -> None:
    async with running(tmp_path) as house:
        got = await ask(house.port, post("/v1/chat/completions", body))
        assert (got.status, got.error["code"]) == (400, code)
        assert set(got.error) == {"message", "type", "param", "code"}
        assert not house.mock.asked
        await house.settled()
        assert house.exchanges()[0].status == 400
        assert house.worker.server.failures == 0


async def test_paths_and_methods(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        for request, status in (
            (post("/v1/nothing", b"{}"), 404),
            (b"GET /v1/chat/completions HTTP/1.1\r\nhost: x\r\n\r\n", 405),
            (post("/v1/models", b""), 405),
            (b"DELETE /v1/models/mock HTTP/1.1\r\nhost: x\r\n\r\n", 405),
            (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", 404),
            (b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n", 401),
            (b"GET /v1/models/%ff%00 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\n\r\n", 404),
            (b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Basic abc\r\n\r\n", 401),
            (post("/v1/chat/completions", GOOD).replace(b"application/json", b"text/plain"), 400),
        ):
            got = await ask(house.port, request)
            assert got.status == status, request
            assert got.error["message"]
            if status == 405:
                assert got.headers[b"allow"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json"])
async def test_what_needs_no_key(tmp_path: Path, path: str) -> None:
    async with running(tmp_path) as house:
        got = await ask(house.port, f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert got.status == 200
        assert got.body
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(f"HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        head = await read_reply(reader, head_only=True)
        assert head.status == 200
        assert b"content-length" in head.headers
        writer.close()


async def test_the_openapi_document_tells_every_path(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        got = await ask(house.port, b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n")
        document = msgspec.json.decode(got.body)
        app = house.worker.app
        assert set(document["paths"]) == {*app._posts, *app._gets, "/v1/models/{model}"}
        fields = document["components"]["schemas"]["ChatEnvelope"]["properties"]
        assert {"model", "messages", "temperature", "stream"} <= set(fields)


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(b"".join(chat(f"number {index}", stream=index % 2 == 1) for index in range(40)))
        for index in range(40):
            got = await read_reply(reader)
            assert got.status == 200
            if index % 2 == 0:
                assert f"number {index}".encode() in got.body
            else:
                assert f" {index}".encode() in got.body
                assert got.body.endswith(b"data: [DONE]\n\n")
        writer.close()


async def test_a_trace_goes_on_with_a_span_of_our_own(tmp_path: Path) -> None:
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with running(tmp_path) as house:
        await ask(house.port, post("/v1/chat/completions", GOOD, more=b"traceparent: " + parent + b"\r\n"))
        sent = house.mock.heads[0][b"traceparent"]
        assert sent.startswith(parent[:36])
        assert sent[36:52] != parent[36:52]
        assert sent.endswith(b"-01")
        await ask(house.port, post("/v1/chat/completions", GOOD, more=b"traceparent: nonsense\r\n"))
        assert b"traceparent" not in house.mock.heads[1]
        await house.settled()
        assert house.exchanges()[0].trace == sent.decode()


async def test_what_the_client_sends_in_its_head_stays_here(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        await ask(house.port, post("/v1/chat/completions", GOOD, more=b"cookie: a=b\r\nx-secret: 1\r\n"))
        assert set(house.mock.heads[0]) == {b"host", b"content-type", b"content-length", b"x-penstock-request-id"}


async def test_metrics_tell_what_happened(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        await ask(house.port, chat("hello"))
        await ask(house.port, chat("hello", stream=True))
        await ask(house.port, chat("hello", temperature=5))
        got = await ask(house.port, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        lines = got.body.decode().splitlines()
        assert 'penstock_requests_total{arm="",outcome="ok",route="mock",status="200",worker="w0"} 2.0' in lines
        assert 'penstock_errors_total{code="invalid_value",worker="w0"} 1.0' in lines
        assert (
            'gen_ai_client_token_usage_tokens_sum{gen_ai_operation_name="chat",gen_ai_provider_name="penstock",'
            'gen_ai_request_model="mock",gen_ai_token_type="output",worker="w0"} 8.0' in lines
        )
        assert 'penstock_requests_in_flight{worker="w0"} 0.0' in lines
        assert 'penstock_snapshot_generation{worker="w0"} 1.0' in lines
        assert 'penstock_replica_up{pool="pool",replica="r0",worker="w0"} 1.0' in lines
        assert any(line.startswith("gen_ai_server_request_duration_seconds_bucket") for line in lines)
