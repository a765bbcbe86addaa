"""Answers made so that two readers could end them at different places: what is behind one is never taken for the next one's."""

from __future__ import annotations

import asyncio
import time

import pytest

from penstock.core.errors import PenstockError, UpstreamFailed
from penstock.net.client import Client, Timeouts, parse_origin
from tests.net.loops import on_both_loops
from tests.net.test_http_client import Talk, client, talking

QUICK = Timeouts(connect_s=2.0, first_byte_s=0.6, stall_s=0.6)
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n"
EVIL = HEAD + b"content-length: 4\r\n\r\nevil"
GOOD = HEAD + b"content-length: 4\r\n\r\ngood"

BROKEN = {
    "two lengths": HEAD + b"content-length: 5\r\ncontent-length: 50\r\n\r\nhello",
    "the same length twice": HEAD + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "a list of lengths": HEAD + b"content-length: 5, 5\r\n\r\nhello",
    "a negative length": HEAD + b"content-length: -5\r\n\r\nhello",
    "a signed length": HEAD + b"content-length: +5\r\n\r\nhello",
    "a hexadecimal length": HEAD + b"content-length: 0x5\r\n\r\nhello",
    "a length beyond all numbers": HEAD + b"content-length: 99999999999999999999999\r\n\r\nhello",
    "length and chunks": HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": CHUNKED + b"content-length: 5\r\n\r\n0\r\n\r\n",
    "a space before the colon": HEAD + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded length": HEAD + b"content-length:\r\n 5\r\n\r\nhello",
    "bare LF": b"HTTP/1.1 200 OK\ncontent-length: 5\n\nhello",
    "LF between fields": HEAD + b"x: y\ncontent-length: 5\r\n\r\nhello",
    "CR in a field": HEAD + b"x: y\rz\r\ncontent-length: 5\r\n\r\nhello",
    "NUL in a field": HEAD + b"x: \x00\r\ncontent-length: 5\r\n\r\nhello",
    "a chunk longer than said": CHUNKED + b"\r\n3\r\nhello\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"\r\n-3\r\nhello\r\n0\r\n\r\n",
    "a chunk with 0x": CHUNKED + b"\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk beyond all numbers": CHUNKED + b"\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "a space behind a chunk's size": CHUNKED + b"\r\n5 \r\nhello\r\n0\r\n\r\n",
    "LF behind a chunk's size": CHUNKED + b"\r\n5\nhello\r\n0\r\n\r\n",
    "LF in an extension": CHUNKED + b"\r\n5;x\ny\r\nhello\r\n0\r\n\r\n",
    "a protocol switched unasked": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 5\r\n\r\nhello",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 5\r\n\r\nhello",
    "a status that is no number": b"HTTP/1.1 OK\r\ncontent-length: 5\r\n\r\nhello",
    "HTTP/2": b"HTTP/2.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "a request": b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
}

# Each has one end, which all readers see at the same place: body, or None where the connection's end is the body's.
CLEAR = {
    "no body, whatever the length says": (b"HTTP/1.1 204 No Content\r\ncontent-length: 26\r\n\r\n", b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 26\r\n\r\n", b""),
    "no length": (HEAD + b"\r\nhello", b"hello"),
    "an unknown coding": (HEAD + b"transfer-encoding: gzip\r\n\r\nhello", b"hello"),
    "chunks and trailers": (CHUNKED + b"\r\n5\r\nhello\r\n0\r\ncontent-type: evil\r\n\r\n", b"hello"),
    "a length of nought": (HEAD + b"content-length: 0\r\n\r\n", b""),
}


def once(answer: bytes, piece: int = 1 << 20) -> Talk:
    """The first connection gives `answer`, `piece` bytes at a time, and closes if nothing else can end it; all others give the good one."""
    first = True

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        try:
            await reader.readuntil(b"\r\n\r\n")
            if first:
                first = False
                for start in range(0, len(answer), piece):
                    writer.write(answer[start : start + piece])
                    await writer.drain()
                    await asyncio.sleep(0)
                if not answer.endswith(b"hello"):
                    await reader.read()
                return
            while True:
                writer.write(GOOD)
                await reader.readuntil(b"\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return talk


async def get(made: Client, url: str) -> tuple[int, bytes]:
    response = await made.request(parse_origin(url), b"GET", b"/", timeouts=QUICK)
    return response.status, await response.read()


@pytest.mark.parametrize("piece", [1 << 20, 7], ids=["whole", "in pieces"])
@pytest.mark.parametrize("name", BROKEN)
async def test_an_answer_with_two_meanings_is_a_failure(name: str, piece: int) -> None:
    async with talking(once(BROKEN[name] + EVIL, piece)) as url, client() as made:
        with pytest.raises(UpstreamFailed):
            await get(made, url)
        for _ in range(2):
            assert await get(made, url) == (200, b"good")


@pytest.mark.parametrize("name", CLEAR)
async def test_what_stands_behind_an_answer_is_nobodys(name: str) -> None:
    answer, body = CLEAR[name]
    ends_with_connection = answer.endswith(b"hello")
    async with talking(once(answer if ends_with_connection else answer + EVIL)) as url, client() as made:
        try:
            assert (await get(made, url))[1] == body
        except UpstreamFailed:
            assert name == "an unknown coding"
        for _ in range(2):
            assert await get(made, url) == (200, b"good")


@on_both_loops
async def test_an_answer_before_the_question_is_thrown_away() -> None:
    """A server that speaks on an idle connection has lost count: what it says must not answer the next request."""
    spoken = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(GOOD)
            await writer.drain()
            await asyncio.sleep(0.02)
            if not spoken.is_set():
                writer.write(EVIL)
                spoken.set()
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with talking(talk) as url, client() as made:
        assert await get(made, url) == (200, b"good")
        await spoken.wait()
        await asyncio.sleep(0.02)
        assert await get(made, url) == (200, b"good")


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n"])
async def test_interim_answers_without_end_have_one(interim: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            while True:
                writer.write(interim * 100)
                await writer.drain()
                await asyncio.sleep(0.001)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    began = time.monotonic()
    async with talking(talk) as url, client() as made:
        with pytest.raises(PenstockError):
            await get(made, url)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("piece", [b"x-a: b\r\n", b"x" * 1000])
async def test_a_head_without_end_has_one(piece: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HEAD)
            while True:
                writer.write(piece * 50)
                await writer.drain()
                await asyncio.sleep(0.001)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    began = time.monotonic()
    async with talking(talk) as url, client() as made:
        with pytest.raises(PenstockError):
            await get(made, url)
    assert time.monotonic() - began < 60
