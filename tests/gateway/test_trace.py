"""What a client says of where its request belongs: passed on as the specifications say, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.trace import next_parent
from tests.gateway.house import KEY, running
from tests.gateway.raw_client import ask, post

TRACE = b"0af7651916cd43dd8448eb211c80319c"
PARENT = b"00-" + TRACE + b"-b7ad6b7169203331-01"
SPAN = bytes(range(8))
GOOD = b'{"model":"mock","messages":[{"role":"user","content":"hello"}]}'


@pytest.mark.parametrize(
    ("received", "flags"),
    [
        (PARENT, "01"),
        (PARENT[:-2] + b"00", "00"),
        (PARENT[:-2] + b"03", "03"),
        (PARENT[:-2] + b"ff", "03"),  # what version 00 has no meaning for is set to nought
        (b"cc" + PARENT[2:], "01"),
        (b"cc" + PARENT[2:-2] + b"ff", "01"),
        (b"cc" + PARENT[2:] + b"-what-the-future-brings", "01"),
    ],
)
def test_a_parent_goes_on_with_a_span_of_our_own(received: bytes, flags: str) -> None:
    assert next_parent(received, SPAN) == f"00-{TRACE.decode()}-{SPAN.hex()}-{flags}"


@pytest.mark.parametrize(
    "received",
    [
        b"",
        b"nonsense",
        b"ff" + PARENT[2:],
        PARENT + b"-more",
        PARENT + b"-",
        b"cc" + PARENT[2:] + b".more",
        PARENT.upper(),
        PARENT + b", " + PARENT,
        b"00-" + b"0" * 32 + PARENT[35:],
        PARENT[:36] + b"0" * 16 + b"-01",
        PARENT[:-1],
        PARENT[1:],
        PARENT.replace(b"-", b"_"),
    ],
)
def test_one_that_is_not_valid_goes_nowhere(received: bytes) -> None:
    assert next_parent(received, SPAN) == ""


@given(st.binary(max_size=80))
def test_anything_may_come(received: bytes) -> None:
    sent = next_parent(received, SPAN)
    assert sent == "" or (len(sent) == 55 and sent.startswith("00-"))


async def test_state_and_baggage_are_passed_on_whole_or_not(tmp_path: Path) -> None:
    state, baggage = b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", b"user=alice,region=eu;p=1"
    many = b",".join(b"k%d=v" % n for n in range(33))
    cases = [
        ({b"traceparent": PARENT, b"tracestate": state}, {b"tracestate": state}),
        ({b"traceparent": b"bad", b"tracestate": state}, {}),
        ({b"tracestate": state}, {}),
        ({b"traceparent": PARENT, b"tracestate": many}, {}),
        ({b"traceparent": PARENT, b"tracestate": b"a=\xff"}, {}),
        ({b"baggage": baggage}, {b"baggage": baggage}),
        ({b"baggage": b"a=" + b"x" * 8192}, {}),
    ]
    async with running(tmp_path) as house:
        for sent, expected in cases:
            more = b"".join(b"%b: %b\r\n" % field for field in sent.items())
            assert (await ask(house.port, post("/v1/chat/completions", GOOD, more=more))).status == 200
            head = house.mock.heads[-1]
            assert {name: head[name] for name in (b"tracestate", b"baggage") if name in head} == expected
        twice = b"traceparent: %b\r\ntracestate: a=1\r\ntracestate: b=2\r\n" % PARENT
        await ask(house.port, post("/v1/chat/completions", GOOD, more=twice))
        assert house.mock.heads[-1][b"tracestate"] == b"a=1, b=2"
        await house.settled()
        first, second, *_ = house.exchanges()
        assert first.trace.startswith("00-" + TRACE.decode())
        assert first.parent == PARENT[36:52].decode()
        assert (second.trace, second.parent) == ("", "")


async def test_the_clients_name_for_its_request_comes_back_and_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path) as house:
        for name in (b"abc-123", b"0af7651916cd43dd8448eb211c80319c", b"tenant/user@host:7#2", b"x" * 128):
            got = await ask(house.port, post("/v1/chat/completions", GOOD, more=b"x-request-id: %b\r\n" % name))
            assert got.headers[b"x-request-id"] == name
            assert got.headers[b"x-penstock-request-id"] != name
            head = house.mock.heads[-1]
            assert head[b"x-client-request-id"] == name
            assert head[b"x-penstock-request-id"] == got.headers[b"x-penstock-request-id"]
            assert b"x-request-id" not in head, "engines take it for the request's identity"
        for name in (b"x" * 129, b"with space", b"<script>", b"", b"\xe4", b"a, b"):
            got = await ask(house.port, post("/v1/chat/completions", GOOD, more=b"x-request-id: %b\r\n" % name))
            assert got.status == 200
            assert b"x-request-id" not in got.headers
            assert b"x-client-request-id" not in house.mock.heads[-1]
        mine = b"x-request-id: mine\r\n"
        refused = await ask(house.port, post("/v1/chat/completions", b"{}", more=mine))
        assert (refused.status, refused.headers[b"x-request-id"]) == (400, b"mine")
        get = b"GET %b HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %b\r\n%b\r\n"
        for path, status in ((b"/v1/models", 200), (b"/nowhere", 404)):
            got = await ask(house.port, get % (path, KEY.encode(), mine))
            assert (got.status, got.headers[b"x-request-id"]) == (status, b"mine")
