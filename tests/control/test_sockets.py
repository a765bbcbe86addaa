"""Bodies past the event loop: real connections to a real server, which end in every way."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext

import httpx
import numpy as np
import pytest
import uvicorn

from penstock.control import sockets
from penstock.control.sockets import LendingConnection, Movers
from penstock.control.storage.thin import thin_next
from penstock.registry.blocks import Block, batch_head
from penstock.store.buffers import Buffer
from tests.control.house import House, eventually
from tests.control.storing import Pushing, checked, fetched, model, push, weights
from tests.control.test_storage import packs_of

LARGE = weights(model(layers=3, side=1600))  # 15 MB: more than sockets hold


class Line:
    """A connection, and what is written on it byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self.reader = reader
        self.writer = writer
        self._key = key

    def ask(self, method: str, path: str, length: int | None, *more: str) -> None:
        lines = [f"{method} /api/v1{path} HTTP/1.1", "host: control", f"authorization: Bearer {self._key}", *more]
        if length is not None:
            lines.append(f"content-length: {length}")
        self.writer.write("\r\n".join([*lines, "", ""]).encode())

    async def answer(self) -> tuple[int, bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        return int(head.split()[1]), await self.reader.readexactly(length)


class Served:
    """A house that listens."""

    def __init__(self, house: House, server: uvicorn.Server, port: int) -> None:
        self.house = house
        self.server = server
        self.port = port
        self.key = (house.control.data / "admin.key").read_text().strip()
        self.threads: set[str] = set()
        came = house.control.binder.came

        def watched(upload: str, name: str, views: Sequence[memoryview], buffers: Sequence[Buffer]) -> None:
            self.threads.add(threading.current_thread().name.partition("_")[0])
            came(upload, name, views, buffers)

        house.control.binder.came = watched  # type: ignore[method-assign]

    async def line(self) -> Line:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        return Line(reader, writer, self.key)

    def client(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=60)


@asynccontextmanager
async def listening(house: House) -> AsyncIterator[Served]:
    config = uvicorn.Config(
        house.app, http=LendingConnection, loop="none", lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[assignment,method-assign]
    with socket.create_server(("127.0.0.1", 0)) as bound:
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        await eventually(lambda: server.started)
        through_the_app, port = house.admin, int(bound.getsockname()[1])
        served = Served(house, server, port)
        house.admin = served.client()
        try:
            yield served
        finally:
            await house.admin.aclose()
            house.admin = through_the_app
            server.should_exit = True
            await serving


@pytest.fixture
async def served(small_house: House) -> AsyncIterator[Served]:
    async with listening(small_house) as made:
        yield made


def body_of(pushing: Pushing, blocks: Iterable[Block]) -> bytes:
    found = list(blocks)
    return batch_head(found) + b"".join(pushing.bytes[block.name] for block in found)


async def test_what_goes_past_the_loop_is_what_goes_through_it(served: Served) -> None:
    version = await push(served.house, "m", "v1.0.0", {"model.safetensors": LARGE})
    assert served.threads == {"mover"}
    assert await fetched(served.house, "m", "v1.0.0") == {"model.safetensors": LARGE}
    served.threads.clear()
    while served.house.control.movers.take():
        pass  # all are busy
    again = await push(served.house, "n", "v1.0.0", {"model.safetensors": LARGE[:-2] + b"!!"})
    assert "mover" not in served.threads
    assert again["files"][0]["digest"] != version["files"][0]["digest"]
    assert await fetched(served.house, "m", "v1.0.0") == {"model.safetensors": LARGE}
    assert (await checked(served.house))[0] == []


async def test_a_connection_goes_on_after_a_body(served: Served) -> None:
    pushing = Pushing(served.house, "m", "v1.0.0", {"model.safetensors": LARGE})
    wanted = await pushing.begin()
    line = await served.line()
    spoiled = bytearray(body_of(pushing, wanted))
    spoiled[5_000_000] ^= 1  # in the middle: what follows is read all the same
    for body, status in ((bytes(spoiled), 400), (body_of(pushing, wanted), 201)):
        line.ask("POST", f"/blobs/blocks?upload={pushing.id}", len(body))
        line.writer.write(body)
        line.ask("GET", "/models", None)
        assert (await line.answer())[0] == status
        assert await line.answer() == (200, b"[]")
    assert served.threads == {"mover"}
    assert len(packs_of(served.house)) == 1
    line.ask("POST", f"/uploads/{pushing.id}/commit", 0)
    assert (await line.answer())[0] == 200
    line.writer.close()


async def test_other_ways_to_send_a_body_are_taken_as_before(served: Served) -> None:
    pushing = Pushing(served.house, "m", "v1.0.0", {"model.safetensors": LARGE})
    wanted = await pushing.begin()
    parts = sorted((body_of(pushing, [block]) for block in wanted), key=len, reverse=True)
    path = f"/blobs/blocks?upload={pushing.id}"
    line = await served.line()
    line.ask("POST", path, None, "transfer-encoding: chunked")
    for start in range(0, len(parts[0]), 1 << 20):
        piece = parts[0][start : start + (1 << 20)]
        line.writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    line.writer.write(b"0\r\n\r\n")
    assert (await line.answer())[0] == 201
    line.ask("POST", path, len(parts[1]), "expect: 100-continue")
    assert await line.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.writer.write(parts[1])
    assert (await line.answer())[0] == 201
    for part in parts[2:]:  # all at once, none waits for an answer
        line.ask("POST", path, len(part))
        line.writer.write(part)
    for _ in parts[2:]:
        assert (await line.answer())[0] == 201
    line.writer.close()
    assert (await pushing.commit()).status_code == 200
    assert await fetched(served.house, "m", "v1.0.0") == {"model.safetensors": LARGE}


async def test_hostile_bodies_are_refused_and_leave_nothing(served: Served) -> None:
    pushing = Pushing(served.house, "m", "v1.0.0", {"model.safetensors": LARGE})
    wanted = await pushing.begin()
    right = body_of(pushing, wanted)
    path = f"/blobs/blocks?upload={pushing.id}"
    line = await served.line()
    for body in (right + b"!", right[:-1], (1 << 31).to_bytes(4, "big") + right, bytes(4) + right, right[:2]):
        line.ask("POST", path, len(body))
        line.writer.write(body)
        assert (await line.answer())[0] == 400
    line.ask("POST", "/blobs/blocks?upload=up-other", len(right))
    line.writer.write(right)
    assert (await line.answer())[0] == 404
    stranger = Line(line.reader, line.writer, "psk-nobody")
    stranger.ask("POST", path, len(right))
    stranger.writer.write(right)
    assert (await line.answer())[0] == 401
    assert packs_of(served.house) == []
    assert (await pushing.commit()).status_code == 409
    line.writer.close()


@pytest.mark.parametrize("how", ["leaves", "stands still"])
async def test_a_body_that_breaks_off_leaves_nothing(served: Served, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "stands still":
        monkeypatch.setattr(sockets, "IDLE_S", 0.3)
    pushing = Pushing(served.house, "m", "v1.0.0", {"model.safetensors": LARGE})
    body = body_of(pushing, await pushing.begin())
    movers = served.house.control.movers = Movers(1)
    line = await served.line()
    line.ask("POST", f"/blobs/blocks?upload={pushing.id}", len(body))
    line.writer.write(body[: len(body) // 2])
    await line.writer.drain()
    await eventually(lambda: bool(served.threads))  # a block has come
    if how == "leaves":
        line.writer.close()
    else:
        assert b"400" in await line.reader.read()  # and it is closed
        line.writer.close()
    await eventually(lambda: not packs_of(served.house))
    await eventually(movers.take)
    movers.give_back()
    await pushing.push()  # what had come is sent again
    assert await fetched(served.house, "m", "v1.0.0") == {"model.safetensors": LARGE}


async def test_a_server_that_stops_breaks_bodies_off(small_house: House) -> None:
    async with listening(small_house) as served:
        await push(small_house, "m", "v1.0.0", {"model.safetensors": LARGE})
        pushing = Pushing(small_house, "n", "v1.0.0", {"model.safetensors": LARGE[:-1] + b"!"})
        body = body_of(pushing, [block for part in pushing.parts.values() for block, _ in part])
        await pushing.begin()
        served.threads.clear()
        sending, fetching = await served.line(), await served.line()
        sending.ask("POST", f"/blobs/blocks?upload={pushing.id}", len(body))
        sending.writer.write(body[:-1])
        await eventually(lambda: bool(served.threads))
        names = [
            block[0]
            for block in (await small_house.get("/models/m/versions/v1.0.0/blocks"))["files"]["model.safetensors"][
                "blocks"
            ]
        ]
        asked = httpx.Request("POST", "http://x", json={"blocks": names}).content
        fetching.ask("POST", "/models/m/versions/v1.0.0/blocks", len(asked), "content-type: application/json")
        fetching.writer.write(asked)
        await fetching.reader.readuntil(b"\r\n\r\n")  # and nothing of the body
        packs = len(packs_of(small_house))
    assert packs == 2
    await eventually(lambda: len(packs_of(small_house)) == 1)
    for line in (sending, fetching):
        line.writer.close()


async def test_whoever_fetches_and_leaves_is_let_go(served: Served) -> None:
    await push(served.house, "m", "v1.0.0", {"model.safetensors": LARGE})
    movers = served.house.control.movers = Movers(1)
    listing = await served.house.get("/models/m/versions/v1.0.0/blocks")
    names = [block[0] for block in listing["files"]["model.safetensors"]["blocks"]] * 8
    asked = httpx.Request("POST", "http://x", json={"blocks": names}).content
    line = await served.line()
    line.ask("POST", "/models/m/versions/v1.0.0/blocks", len(asked), "content-type: application/json")
    line.writer.write(asked)
    await line.reader.readuntil(b"\r\n\r\n")
    assert not movers.take()
    line.writer.transport.abort()
    await eventually(movers.take)
    movers.give_back()
    assert await fetched(served.house, "m", "v1.0.0") == {"model.safetensors": LARGE}


async def test_deltas_and_blocks_of_several_packs_come_as_they_were(served: Served) -> None:
    random = np.random.default_rng(9)
    base = model(layers=3, side=256)
    tuned = {name: values + random.normal(0, 1e-4, values.shape) for name, values in base.items()}
    mixed = {**tuned, "layers.1.weight": base["layers.1.weight"], "new": random.normal(0, 1, (64, 64))}
    files = {f"v1.{i}.0": {"m.safetensors": weights(one)} for i, one in enumerate((base, tuned, mixed))}
    for label, one in files.items():
        await push(served.house, "m", label, one)
    while await thin_next(served.house.control):
        pass
    assert (await served.house.get("/storage"))["deltas"] > 0
    for label, one in files.items():
        assert await fetched(served.house, "m", label) == one


async def test_zeros_stand_for_what_cannot_be_read(served: Served) -> None:
    data = weights(model(layers=4))
    await push(served.house, "m", "v1.0.0", {"m.safetensors": data})
    [pack] = packs_of(served.house)
    listing = await served.house.get("/models/m/versions/v1.0.0/blocks")
    blocks = listing["files"]["m.safetensors"]["blocks"]

    async def read() -> bytes:
        path = "/api/v1/models/m/versions/v1.0.0/blocks"
        answer = await served.house.admin.post(path, json={"blocks": [block[0] for block in blocks]})
        assert answer.status_code == 200
        return answer.content

    assert await read() == data
    pack.write_bytes(data[:-1000])
    assert await read() == data[:-1000] + bytes(1000)
    pack.unlink()
    assert await read() == bytes(len(data))
