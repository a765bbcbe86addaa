"""What every blob store promises."""

import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from penstock.core.digests import sha256_digest
from penstock.core.errors import BadRequest, Damaged, NotFound, Unavailable
from penstock.store.blobs import Blobs, open_blobs
from penstock.store.sql import Database
from penstock.store.whole_files import whole_key
from tests.store.s3_server import KEY, REGION, SECRET, S3Server


@pytest.fixture(scope="module")
def s3_server() -> Iterator[tuple[S3Server, str]]:
    server = S3Server()
    yield server, server.start()
    server.stop()


@pytest.fixture
def s3(s3_server: tuple[S3Server, str], monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """An S3 server without objects; the environment tells where it is, as that of the AWS tools."""
    server, url = s3_server
    server.objects.clear()
    server.refused.clear()
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture(params=["folder", "memory", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, sqlite: Database) -> Blobs:
    if request.param == "s3":
        request.getfixturevalue("s3")
        return open_blobs("s3://bucket/versions", tmp_path, sqlite)
    return open_blobs("memory:///" if request.param == "memory" else "", tmp_path / "blobs", sqlite)


async def pieces(data: bytes, size: int = 1 << 20) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


SMALL = b"a small blob"
LARGE = bytes(range(256)) * (40 * 1024)  # 10 MiB: more than is written in one request


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_what_was_put_is_got(blobs: Blobs, data: bytes) -> None:
    digest = sha256_digest(data)
    assert await blobs.size(digest) is None
    assert await blobs.put_new(digest, pieces(data), size=len(data)) == len(data)
    assert await blobs.get(digest) == data
    assert await blobs.size(digest) == len(data)
    assert [(s.digest, s.size) async for s in blobs.list()] == [(digest, len(data))]


async def test_putting_again_reads_nothing_and_changes_nothing(blobs: Blobs) -> None:
    digest = await blobs.put_bytes(SMALL)

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    assert await blobs.put_new(digest, never()) == len(SMALL)
    assert await blobs.put_bytes(SMALL) == digest


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_other_bytes_than_the_digest_says_are_refused_and_leave_no_trace(blobs: Blobs, data: bytes) -> None:
    digest = sha256_digest(data)
    with pytest.raises(BadRequest, match="are those of"):
        await blobs.put_new(digest, pieces(data[:-1] + b"!"))
    with pytest.raises(BadRequest, match="more bytes"):
        await blobs.put_new(digest, pieces(data), size=len(data) - 1)
    with pytest.raises(BadRequest, match="announced"):
        await blobs.put_new(digest, pieces(data), size=len(data) + 1)
    assert await blobs.size(digest) is None
    assert [s async for s in blobs.list()] == []


async def test_a_source_that_breaks_off_leaves_no_trace(blobs: Blobs) -> None:
    async def broken() -> AsyncIterator[bytes]:
        async for piece in pieces(LARGE):
            yield piece
        raise ConnectionResetError

    with pytest.raises((ConnectionResetError, Unavailable)):
        await blobs.put_new(sha256_digest(LARGE), broken())
    assert [s async for s in blobs.list()] == []


async def test_what_is_not_there_is_told(blobs: Blobs) -> None:
    with pytest.raises(NotFound):
        await blobs.get(sha256_digest(SMALL))
    assert await blobs.size(sha256_digest(SMALL)) is None


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "sha256:..", "sha256:" + "A" * 64, "sha256:" + "0" * 63 + "/", "", "md5:" + "0" * 64]
)
async def test_a_name_that_is_no_digest_never_becomes_a_path(blobs: Blobs, name: str) -> None:
    with pytest.raises(BadRequest):
        await blobs.get(name)
    with pytest.raises(BadRequest):
        await blobs.put_new(name, pieces(SMALL))


def packs_in(folder: Path) -> list[Path]:
    return [path for path in (folder / "packs").rglob("*") if path.is_file()]


async def test_a_flipped_byte_is_found(tmp_path: Path, sqlite: Database) -> None:
    blobs = open_blobs("", tmp_path / "blobs", sqlite)
    digest = await blobs.put_bytes(SMALL)
    [path] = packs_in(tmp_path / "blobs")
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged, match=hashlib.sha256(SMALL).hexdigest()[:12]):
        await blobs.get(digest)


async def test_a_failed_large_put_leaves_no_file(tmp_path: Path, sqlite: Database) -> None:
    blobs = open_blobs("", tmp_path / "blobs", sqlite)
    with pytest.raises(BadRequest):
        await blobs.put_new(sha256_digest(SMALL), pieces(bytes(5 << 20) + LARGE * 4))
    assert packs_in(tmp_path / "blobs") == []


async def test_what_was_kept_whole_before_is_read_and_known(tmp_path: Path, sqlite: Database) -> None:
    digest = sha256_digest(LARGE)
    path = tmp_path / "blobs" / whole_key(digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(LARGE)
    blobs = open_blobs("", tmp_path / "blobs", sqlite)
    assert await blobs.size(digest) == len(LARGE)
    assert await blobs.get(digest) == LARGE
    assert [(s.digest, s.size) async for s in blobs.list()] == [(digest, len(LARGE))]
    path.write_bytes(LARGE[:-1] + b"!")
    with pytest.raises(Damaged, match=digest[7:19]):
        await blobs.get(digest)


def test_an_unknown_store_is_refused_by_name(tmp_path: Path, sqlite: Database) -> None:
    with pytest.raises(BadRequest, match="gopher"):
        open_blobs("gopher://x", tmp_path, sqlite)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, sqlite: Database) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot hold blobs"):
        open_blobs("", tmp_path / "file" / "blobs", sqlite)


async def test_a_bucket_holds_packs_and_tells_what_is_damaged_or_gone(
    s3: S3Server, tmp_path: Path, sqlite: Database
) -> None:
    blobs = open_blobs("s3://bucket/versions", tmp_path, sqlite)
    data = random.Random(1).randbytes(9 << 20)
    digest = await blobs.put_bytes(data)
    [key] = s3.objects
    assert key.startswith("versions/packs/")
    assert s3.refused == []
    [(identity, size)] = [pack async for pack in blobs.packs.list()]
    assert size == len(data)
    s3.fail = 2  # the client tries again
    assert await blobs.get(digest) == data
    s3.objects[key] = data[:-1] + b"!"
    with pytest.raises(Damaged, match="at bytes"):
        await blobs.get(digest)
    s3.objects[key] = data[:-1]
    with pytest.raises(Damaged, match="cut off"):
        await blobs.get(digest)
    blobs.packs.delete(identity)
    assert s3.objects == {}
    with pytest.raises(Damaged, match="gone"):
        await blobs.get(digest)


async def test_a_bucket_that_does_not_know_the_key_is_told(
    s3: S3Server, tmp_path: Path, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(Unavailable, match="s3://bucket/versions"):
        await open_blobs("s3://bucket/versions", tmp_path, sqlite).put_bytes(SMALL)
    assert s3.refused
    assert s3.objects == {}
