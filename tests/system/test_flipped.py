"""Each byte of a stored version, flipped in turn (sampled): a pull, the check of everything and the engine that would load it all refuse it and name the file and the tensor."""

import asyncio
import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from penstock.cli.main import cli
from penstock.control.context import Control as Stores
from penstock.control.deploy.state import BuildInfo
from penstock.control.versions.builds import Builds
from penstock.core.errors import Damaged, PenstockError
from penstock.core.settings import Settings
from penstock.delivery.pools import BuildKey
from penstock.engine.provenance import verify_build
from penstock.store.blobs import open_blobs
from penstock.store.sql import open_database
from tests.cli.test_cli import PATIENCE_S, Control
from tests.cli.test_models_storage import told
from tests.control.house import safetensors

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

DRAW = random.Random(5)
WEIGHTS = {f"layers.{i}": DRAW.randbytes(3000) for i in range(3)}
BINARY = DRAW.randbytes(5000)
XML = b"".join(
    b'<layer id="%d" name="%s" type="Const"><data element_type="u8" offset="%d" size="%d"/></layer>'
    % (n, name, at, size)
    for n, (name, at, size) in enumerate([(b"embed", 0, 2000), (b"head", 2000, 3000)])
)
FILES = {
    "README.md": b"---\nlicense: apache-2.0\n---\n# bot\n",
    "safetensors/model.safetensors": safetensors(**WEIGHTS),
    "openvino-int8/openvino_model.xml": XML,
    "openvino-int8/openvino_model.bin": BINARY,
    "openvino-int8/config.json": b'{"model_type": "llama"}',
}


class Spot(NamedTuple):
    """A byte of a file, and the tensor that it belongs to, if it belongs to one."""

    path: str
    at: int
    tensor: str


def tensor_at(path: str, at: int) -> str:
    if path.endswith(".bin"):
        return "embed" if at < 2000 else "head"
    if path.endswith(".safetensors"):
        begin = len(FILES[path]) - sum(len(data) for data in WEIGHTS.values())
        return f"layers.{(at - begin) // 3000}" if at >= begin else ""
    return ""


def spots(each: int) -> list[Spot]:
    """The first and last byte of every file, and `each` more."""
    draw = random.Random(each)
    return [
        Spot(path, at, tensor_at(path, at))
        for path, data in FILES.items()
        for at in sorted({0, len(data) - 1, *(draw.randrange(len(data)) for _ in range(each))})
    ]


class Kept(NamedTuple):
    """A version that is stored and signed."""

    control: Control
    key: str
    digest: str
    builds: dict[str, str]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    base = tmp_path_factory.mktemp("flipped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(base / "cache"))
        control = Control(base / "d")
        for path, data in FILES.items():
            (base / "s" / path).parent.mkdir(parents=True, exist_ok=True)
            (base / "s" / path).write_bytes(data)
        version = told(control, "models", "push", str(base / "s"), "bot:v1.0.0")
        signer = told(control, "signers", "create", "release")
        told(control, "models", "sign", "bot:v1.0.0", "--signer", "release")
        yield Kept(
            control, signer["public"], version["digest"], {b["precision"]: b["digest"] for b in version["builds"]}
        )
    control.process.terminate()
    assert control.process.wait(PATIENCE_S) == 0


class Flipped:
    """One byte of what is stored, another one as long as the context lasts."""

    def __init__(self, kept: Kept, spot: Spot) -> None:
        data = FILES[spot.path]
        begin, end = max(0, spot.at - 20), min(len(data), spot.at + 20)
        around = data[begin:end]
        packs = (kept.control.data / "blobs" / "packs").rglob("*")
        [(self.file, self.at)] = [
            (pack, pack.read_bytes().index(around) + spot.at - begin)
            for pack in packs
            if pack.is_file() and around in pack.read_bytes()
        ]

    def __enter__(self) -> None:
        self._flip()

    def __exit__(self, *_: object) -> None:
        self._flip()

    def _flip(self) -> None:
        with self.file.open("r+b") as file:
            file.seek(self.at)
            byte = file.read(1)[0]
            file.seek(self.at)
            file.write(bytes([byte ^ 0x40]))


def refused(kept: Kept, spot: Spot, *words: str) -> str:
    with pytest.raises(PenstockError) as caught:
        told(kept.control, *words)
    message = f"{caught.value.message} {caught.value.hint or ''}"
    assert spot.tensor in message, (spot, message)
    return message


def check(kept: Kept, spot: Spot, folder: Path) -> None:
    """What a person meets: a pull that leaves nothing, and a check that lists it."""
    with Flipped(kept, spot):
        assert spot.path in refused(kept, spot, "models", "pull", "bot:v1.0.0", str(folder))
        assert not (folder / spot.path).exists()
        [damage] = damages(kept)
        assert (damage["version"], damage["file"]) == ("bot:v1.0.0", spot.path)
        assert not spot.tensor or spot.tensor in damage["tensors"]


def damages(kept: Kept) -> Any:
    """What `models fsck` lists."""
    text = io.StringIO()
    words = ["models", "fsck", "--url", kept.control.url, "--data", str(kept.control.data), "--json"]
    with contextlib.redirect_stdout(text), pytest.raises(Damaged, match="1 places are damaged"):
        cli.main(words, standalone_mode=False)
    return json.loads(text.getvalue())["damages"]


@pytest.mark.parametrize("spot", spots(1), ids=lambda spot: f"{spot.path}-{spot.at}")
def test_a_pull_and_the_check_of_everything_refuse_it(kept: Kept, spot: Spot, tmp_path: Path) -> None:
    check(kept, spot, tmp_path / "out")


@pytest.mark.soak
def test_hundreds_of_bytes_are_found(kept: Kept, tmp_path: Path) -> None:
    for number, spot in enumerate(spots(60)):
        check(kept, spot, tmp_path / f"out{number}")


async def loading(kept: Kept) -> tuple[Stores, Builds, BuildInfo]:
    """What control does to hand a build to an engine, over the same data folder."""
    data = kept.control.data
    database = await open_database(f"sqlite+aiosqlite:///{data / 'penstock.db'}")
    stores = Stores(
        settings=Settings(data=str(data)), data=data, database=database, blobs=open_blobs("", data / "blobs", database),
        service_token="t", clock=time.time, entropy=os.urandom,
    )  # fmt: skip
    key = BuildKey(model="bot", label="v1.0.0", precision="int8")
    build = BuildInfo(key=key, digest=kept.builds["int8"], version_digest=kept.digest, folder="openvino-int8")
    return stores, Builds(stores), build


async def test_no_damaged_byte_reaches_an_engine_and_none_is_loaded(kept: Kept, tmp_path: Path) -> None:
    stores, builds, build = await loading(kept)
    own = [spot for spot in spots(6) if spot.path.startswith("openvino-int8/")]
    for spot in own[::3]:
        with Flipped(kept, spot), pytest.raises(Damaged) as caught:
            await builds.folder(build)
        assert spot.path.partition("/")[2] in caught.value.message
        assert spot.tensor in caught.value.message
        assert not (kept.control.data / "builds" / build.digest.removeprefix("sha256:")).exists()
    folder = await builds.folder(build)
    provenance, digest, keys = await builds.provenance(build)
    assert (digest, keys) == (kept.digest, (kept.key,))
    assert verify_build(folder, provenance, keys, expected=digest) == kept.digest
    for spot in own:
        file = folder / spot.path.partition("/")[2]
        data = file.read_bytes()
        file.write_bytes(data[: spot.at] + bytes([data[spot.at] ^ 0x40]) + data[spot.at + 1 :])
        with pytest.raises(Damaged) as caught:
            await asyncio.to_thread(verify_build, folder, provenance, keys, expected=digest)
        assert f"{spot.path} is damaged" in caught.value.message
        assert spot.tensor in caught.value.message
        if spot is own[-1]:
            command = [sys.executable, "-P", "-m", "penstock.cli", "engine", str(folder), "--provenance", str(provenance), "--trust", keys[0]]  # fmt: skip
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)  # fmt: skip
            assert done.returncode == 1
            assert f"{spot.path} is damaged" in done.stderr
        file.write_bytes(data)
    await stores.database.close()


def test_an_exported_file_with_another_byte_is_refused(kept: Kept, tmp_path: Path) -> None:
    told(kept.control, "models", "export", "bot:v1.0.0", str(tmp_path / "v.tar"))
    raw = (tmp_path / "v.tar").read_bytes()
    with tarfile.open(tmp_path / "v.tar") as archive:
        places = [
            (one.offset_data, one.size) for one in archive.getmembers() if one.name.startswith("blobs/") and one.size
        ]
    draw = random.Random(9)
    for begin, size in places:
        at = begin + draw.randrange(size)
        (tmp_path / "w.tar").write_bytes(raw[:at] + bytes([raw[at] ^ 0x40]) + raw[at + 1 :])
        with pytest.raises(PenstockError, match="The archive is refused"):
            told(kept.control, "models", "import", str(tmp_path / "w.tar"), "--as", "other:v1.0.0")
    assert kept.control.run("models", "show", "other:v1.0.0").returncode == 1
