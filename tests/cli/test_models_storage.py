"""Pushing, fetching, checking and sweeping by commands, against a real control process."""

import contextlib
import io
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.client import Api
from penstock.cli.main import cli
from penstock.cli.models import push as pushing
from penstock.core.errors import BadRequest, Damaged, NotFound
from penstock.registry.blocks import Block, batch_head
from penstock.store import remembered
from penstock.store.buffers import Buffers
from tests.cli.test_cli import Control
from tests.control.house import safetensors


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    made = Control(tmp_path_factory.mktemp("storage") / "d")
    yield made
    made.process.terminate()
    assert made.process.wait(90) == 0


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def told(control: Control, *words: str) -> Any:
    """What a command prints as JSON."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        cli.main([*words, "--url", control.url, "--data", str(control.data), "--json"], standalone_mode=False)
    return json.loads(text.getvalue())


def tensors(seed: int = 0) -> dict[str, bytes]:
    draw = random.Random(seed)
    return {f"layer.{i}": draw.randbytes(60_000) for i in range(4)}


def folder(path: Path, **files: bytes) -> Path:
    for name, data in files.items():
        target = path / name.replace("__", "/").replace("_ext_", ".")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return path


def packs(control: Control) -> list[Path]:
    return sorted((path for path in (control.data / "blobs/packs").rglob("*") if path.is_file()), key=os.path.getmtime)


def test_a_neighbour_is_fetched_by_what_no_file_here_has(control: Control, tmp_path: Path) -> None:
    first, second = tensors(), {**dict(reversed(tensors().items())), "layer.9": b"x" * 1000}
    for label, part in (("v1.0.0", first), ("v1.0.1", second)):
        source = folder(tmp_path / label, sub__model_ext_safetensors=safetensors(**part), empty=b"")
        told(control, "models", "push", str(source), f"near:{label}")
    a = told(control, "models", "pull", "near:v1.0.0", str(tmp_path / "a"), "--sha256")
    b = told(control, "models", "pull", "near:v1.0.1", str(tmp_path / "b"), "--sha256")
    assert a["fetched"] > 240_000
    assert 1000 < b["fetched"] < 2000  # the new tensor and the header
    assert (tmp_path / "b/sub/model.safetensors").read_bytes() == safetensors(**second)
    assert told(control, "models", "pull", "near:v1.0.1", str(tmp_path / "b"))["fetched"] == 0
    mended = tmp_path / "b/sub/model.safetensors"
    data = bytearray(mended.read_bytes())
    data[-1] ^= 1
    mended.write_bytes(data)
    told(control, "models", "pull", "near:v1.0.1", str(tmp_path / "b"))
    assert mended.read_bytes() == safetensors(**second)
    draft = tmp_path / "c/sub/.model.safetensors.part"
    draft.parent.mkdir(parents=True)
    draft.write_bytes(bytes(70_000) + safetensors(**first)[70_000:])  # a pull that broke off
    told(control, "models", "pull", "near:v1.0.0", str(tmp_path / "c"))
    assert (tmp_path / "c/sub/model.safetensors").read_bytes() == safetensors(**first)
    assert sorted(path.name for path in (tmp_path / "c/sub").iterdir()) == ["model.safetensors"]


def test_what_was_read_once_is_not_read_again_unless_it_changed(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "SETTLED_S", -60.0)  # nobody waits here for the file to settle
    source = folder(tmp_path / "s", model_ext_safetensors=safetensors(**tensors(3)), config_ext_json=b"{}")
    first = told(control, "models", "push", str(source), "seen:v1.0.0")
    read: list[str] = []
    real = pushing._read_block

    def watched(fd: int, start: int, size: int, name: str, buffers: Buffers) -> Any:
        read.append(name)
        return real(fd, start, size, name, buffers)

    monkeypatch.setattr(pushing, "_read_block", watched)
    again = told(control, "models", "push", str(source), "seen:v1.0.1")
    assert (again["digest"], again["sent"], read) == (first["digest"], 0, [])
    assert told(control, "models", "push", str(source), "seen:v1.0.2", "--reread")["digest"] == first["digest"]
    assert set(read) == {"model.safetensors", "config.json"}
    read.clear()
    other = safetensors(**tensors(3) | {"layer.2": bytes(60_000)})
    (source / "model.safetensors").write_bytes(other)
    changed = told(control, "models", "push", str(source), "seen:v1.0.3")
    assert set(read) == {"model.safetensors"}
    assert changed["sent"] == 60_000
    told(control, "models", "pull", "seen:v1.0.3", str(tmp_path / "out"))
    assert (tmp_path / "out/model.safetensors").read_bytes() == other


def test_a_file_that_changes_while_it_is_sent_is_refused(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "s", model_ext_safetensors=safetensors(**tensors(4)))

    def late(blocks: list[Block]) -> bytes:
        with (source / "model.safetensors").open("r+b") as file:
            file.seek(-10, os.SEEK_END)
            file.write(b"!")
        return batch_head(blocks)

    monkeypatch.setattr(pushing, "batch_head", late)
    with pytest.raises(BadRequest, match="The bytes sent for the block"):
        told(control, "models", "push", str(source), "moving:v1.0.0")
    with pytest.raises(NotFound):
        told(control, "models", "show", "moving:v1.0.0")


def test_damage_is_told_with_file_and_tensor_by_pull_and_fsck_and_mended_by_a_push(
    control: Control, tmp_path: Path
) -> None:
    data = safetensors(**tensors(7))
    source = folder(tmp_path / "s", weights__model_ext_safetensors=data)
    told(control, "models", "push", str(source), "hurt:v1.0.0")
    pack = packs(control)[-1]
    raw = bytearray(pack.read_bytes())
    raw[raw.index(tensors(7)["layer.2"]) + 17] ^= 4
    pack.write_bytes(raw)
    with pytest.raises(Damaged, match=r"weights/model\.safetensors is damaged at bytes .* in layer\.2"):
        told(control, "models", "pull", "hurt:v1.0.0", str(tmp_path / "out"))
    assert not (tmp_path / "out/weights/model.safetensors").exists()
    pack.rename(tmp_path / "pack")
    with pytest.raises(Damaged, match=r"weights/model\.safetensors is damaged at bytes"):
        told(control, "models", "pull", "hurt:v1.0.0", str(tmp_path / "out"))
    (tmp_path / "pack").rename(pack)
    with pytest.raises(Damaged, match="1 places are damaged"):
        told(control, "models", "fsck")
    done = control.run("models", "fsck")
    assert done.returncode == 1
    assert "hurt:v1.0.0" in done.stdout
    assert "layer.2" in done.stdout
    with pytest.raises(Damaged):
        told(control, "models", "fsck", "--forget")
    told(control, "models", "push", str(source), "hurt:v1.0.1")
    assert told(control, "models", "fsck")["damages"] == []
    told(control, "models", "pull", "hurt:v1.0.0", str(tmp_path / "out"))
    assert (tmp_path / "out/weights/model.safetensors").read_bytes() == data


def test_bytes_of_what_was_deleted_go_unless_they_are_pinned(control: Control, tmp_path: Path) -> None:
    for label in ("v1.0.0", "v1.0.1"):
        source = folder(tmp_path / label, model_ext_safetensors=safetensors(w=random.Random(label).randbytes(100_000)))
        told(control, "models", "push", str(source), f"gone:{label}")
    assert told(control, "models", "pin", "gone:v1.0.1", "--reason", "an auditor asked")["pins"][0]["label"] == "v1.0.1"
    for label in ("v1.0.0", "v1.0.1"):
        told(control, "models", "delete", f"gone:{label}", "--yes")
    assert told(control, "models", "gc", "--grace", "0", "--dry-run")["files"] == 1
    assert told(control, "models", "gc", "--grace", "0")["files"] == 1
    with pytest.raises(NotFound, match="not stored any more"):
        told(control, "models", "pull", "gone:v1.0.0", str(tmp_path / "out"))
    told(control, "models", "pull", "gone:v1.0.1", str(tmp_path / "out"))
    assert told(control, "models", "unpin", "gone:v1.0.1")["pins"] == []
    stored = told(control, "models", "storage")
    assert 0 < stored["live"] <= stored["stored"]
    assert "stored" in control.run("models", "storage").stdout


@pytest.mark.parametrize("kind", ["link", "linked folder", "pipe", "name", "pickle", "header", "tensors"])
def test_hostile_folders_are_refused_before_anything_is_sent(control: Control, tmp_path: Path, kind: str) -> None:
    source = folder(tmp_path / "s", config_ext_json=b"{}")
    if kind == "link":
        (source / "secrets.txt").symlink_to("/etc/passwd")
    elif kind == "linked folder":
        (source / "sub").symlink_to("/etc")
    elif kind == "pipe":
        os.mkfifo(source / "pipe")
    elif kind == "name":
        (source / "a\u202eb.json").write_text("{}")
    elif kind == "pickle":
        (source / "model.pkl").write_bytes(b"\x80\x04.")
    elif kind == "header":
        (source / "model.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    else:
        (source / "model.safetensors").write_bytes(safetensors(**{f"t{i}": b"x" for i in range(10_000)}))
    named = {
        "link": "secrets.txt is a link to /etc/passwd", "linked folder": "is a link to /etc", "pipe": "pipe", "name": r"U\+202E",
        "pickle": "is a pickle", "header": "1099511627776 bytes", "tensors": "10000 tensors",
    }  # fmt: skip
    before = packs(control)
    with pytest.raises(BadRequest, match=named[kind]):
        told(control, "models", "push", str(source), "hostile:v1.0.0")
    assert packs(control) == before
    with pytest.raises(NotFound):
        told(control, "models", "show", "hostile:v1.0.0")


def test_a_server_that_lies_writes_and_removes_nothing(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = told(control, "models", "push", str(folder(tmp_path / "s", a_ext_json=b"{}")), "honest:v1.0.0")["digest"]
    mine = tmp_path / "mine.txt"
    mine.write_text("kept")
    real = Api.get

    def renamed(api: Api, path: str, **query: Any) -> Any:
        found = real(api, path, **query)
        if path == "/resolve":
            found["files"][0]["path"] = str(mine)
        return found

    def other(api: Api, path: str, **query: Any) -> Any:
        found = real(api, path, **query)
        if path.endswith("/blocks"):
            found["files"]["a.json"]["digest"] = "sha256:" + "0" * 64
        return found

    def another(api: Api, path: str, **query: Any) -> Any:
        return real(api, path, **query) | ({"digest": "sha256:" + "0" * 64} if path == "/resolve" else {})

    monkeypatch.setattr(Api, "get", renamed)
    told(control, "models", "pull", "honest:v1.0.0", str(tmp_path / "out"), "--sha256")
    assert mine.read_text() == "kept"
    for lie in (other, another):
        monkeypatch.setattr(Api, "get", lie)
        with pytest.raises(Damaged):
            told(control, "models", "pull", f"honest@{digest}", str(tmp_path / lie.__name__))
        assert not (tmp_path / lie.__name__).exists()
