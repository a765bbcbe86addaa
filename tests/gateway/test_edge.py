"""The gateway behind TLS, its bounds, and what it tells of its edge."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import time
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from penstock.core.errors import BadRequest
from penstock.core.settings import GatewaySettings
from penstock.gateway.edge import read_certificate, server_limits
from penstock.gateway.keep import write_snapshot
from tests.gateway.house import KEY, House, running, snapshot, until
from tests.gateway.mock_upstream import MockUpstream
from tests.gateway.raw_client import Got, ask, chat, read_reply
from tests.gateway.test_serving import listens, open_journal, serving
from tests.net.certificates import make_certificate, trusting
from tests.ports import free_port


def sealed(folder: Path) -> dict[str, str]:
    certificate, key = make_certificate(folder / "tls")
    return {"tls_certificate": str(certificate), "tls_key": str(key)}


async def ask_sealed(port: int, folder: Path, request: bytes) -> Got:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(folder / "tls" / "cert.pem"))
    try:
        writer.write(request)
        return await read_reply(reader)
    finally:
        writer.close()


async def serial(port: int) -> int:
    """The number of the certificate that is shown now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number


async def metrics(house: House) -> dict[str, float]:
    text = house.worker.gateway.meters.exposition().decode()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[:1] != "#"}


async def test_answers_and_streams_over_tls(tmp_path: Path) -> None:
    async with running(tmp_path, settings=sealed(tmp_path)) as house:
        got = await ask_sealed(house.port, tmp_path, chat("hello"))
        assert got.status == 200
        assert b"hello" in got.body
        got = await ask_sealed(house.port, tmp_path, chat("one two three", stream=True))
        assert got.whole
        assert got.body.endswith(b"data: [DONE]\n\n")
        plain = await ask(house.port, chat("hello"))
        assert plain.status == 400
        assert b"TLS" in plain.body
        told = await metrics(house)
        assert told['penstock_tls_failures_total{worker="w0"}'] == 1
        expires = told['penstock_tls_certificate_expires_timestamp_seconds{worker="w0"}']
        assert expires - time.time() == pytest.approx(2 * 86400, abs=600)
        await house.settled()


async def test_a_client_that_leaves_over_tls_stops_the_engine(tmp_path: Path) -> None:
    async with running(tmp_path, settings=sealed(tmp_path), pause_s=0.02) as house:
        context = trusting(tmp_path / "tls" / "cert.pem")
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port, ssl=context)
        writer.write(chat("word " * 2000, stream=True))
        await reader.readuntil(b"word")
        writer.close()
        await until(lambda: house.mock.left == 1)
        await house.settled()


async def test_a_certificate_is_renewed_by_its_file_and_by_a_signal(tmp_path: Path) -> None:
    mock = MockUpstream()
    write_snapshot(tmp_path / "gateway" / "snapshot.json", snapshot([await mock.start()]))
    port, journal = free_port(), open_journal(tmp_path)
    task = serving(tmp_path, port, journal, **sealed(tmp_path))
    await until(lambda: listens(port))
    assert await serial(port) == 1
    make_certificate(tmp_path / "tls", serial=2)
    async with asyncio.timeout(15):
        while await serial(port) != 2:
            await asyncio.sleep(0.05)
    make_certificate(tmp_path / "tls", serial=1)
    os.kill(os.getpid(), signal.SIGHUP)
    async with asyncio.timeout(15):
        while await serial(port) != 1:
            await asyncio.sleep(0.01)
    assert (await ask_sealed(port, tmp_path, chat("hello"))).status == 200
    os.kill(os.getpid(), signal.SIGTERM)
    await task
    journal.close()
    await mock.stop()


def test_a_certificate_without_its_key_is_refused_by_name(tmp_path: Path) -> None:
    settings = sealed(tmp_path)
    for missing in settings:
        with pytest.raises(BadRequest, match=f"gateway.{missing} is not set"):
            read_certificate(msgspec.structs.replace(GatewaySettings(**settings), **{missing: ""}))  # type: ignore[arg-type]
    assert read_certificate(GatewaySettings()) is None


async def test_refusals_at_the_edge_are_counted(tmp_path: Path) -> None:
    async with running(tmp_path, settings={"max_connections": 2}) as house:
        assert (await ask(house.port, b"GET / HTTP/1.1\r\n\r\n")).status == 400
        await until(lambda: house.worker.server.connections == 0)
        held = [await asyncio.open_connection("127.0.0.1", house.port) for _ in range(2)]
        await until(lambda: house.worker.server.connections == 2)
        got = await ask(house.port, chat("hello"))
        assert got.status == 503
        assert got.error["code"] == "too_many_connections"
        assert got.headers[b"retry-after"] == b"1"
        for _, writer in held:
            writer.close()
        told = await metrics(house)
        assert told['penstock_edge_refusals_total{status="400",worker="w0"}'] == 1
        assert told['penstock_edge_refusals_total{status="503",worker="w0"}'] == 1


def test_connections_are_bounded_by_open_files() -> None:
    for descriptors in (256, 1024, 4096, 1 << 20):
        bounds = server_limits(GatewaySettings(), descriptors)
        assert 2 * bounds.max_connections + bounds.max_refused + 64 <= descriptors
        assert bounds.max_connections >= min(8192, descriptors // 3)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"OPTIONS /v1/models", 405),
        (b"TRACE /v1/models", 405),
        (b"TRACE /v1/chat/completions", 405),
        (b"PUT /v1/chat/completions", 405),
        (b"OPTIONS *", 404),
        (b"GET //v1/models", 404),
        (b"GET /v1/../v1/models", 404),
        (b"GET /v1/models%00", 404),
        (b"GET /v1/models/%00", 404),
        (b"GET /v1/models/%ff%fe", 404),
        (b"GET /v1/models/..%2f..%2fetc", 404),
        (b"GET http://elsewhere/v1/models", 200),
        (b"GET http://elsewhere?/v1/models", 404),
        (b"CONNECT /v1/models", 400),
    ],
)
async def test_methods_and_paths_that_are_odd(tmp_path: Path, line: bytes, status: int) -> None:
    async with running(tmp_path) as house:
        request = b"%b HTTP/1.1\r\nhost: a\r\nauthorization: Bearer %b\r\n\r\n" % (line, KEY.encode())
        got = await ask(house.port, request)
        assert got.status == status
        if status == 405:
            assert got.headers[b"allow"] in {b"POST", b"GET, HEAD"}
        assert b"authorization" not in got.body.lower(), "nothing is mirrored"
