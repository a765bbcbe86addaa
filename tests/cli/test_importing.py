"""Imports by command, against a real control plane and a hub on a real socket: from the hub, from a folder, and what is refused with a sentence."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.cli.main import cli
from penstock.core.errors import BadRequest, Forbidden, NotFound, PenstockError
from tests.cli.hub_server import FakeHub, Repo
from tests.console.house import ADMIN, House
from tests.control.house import safetensors

WEIGHTS = safetensors(words=bytes(range(256)) * 40)
CARD = b"---\nlicense: mit\nlanguage: en\npipeline_tag: text-generation\nbase_model: org/base\n---\n# A model\n"
FILES = {
    "README.md": CARD,
    "config.json": b'{"model_type": "gpt2"}',
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"never fetched",
    "modeling.py": b"never fetched",
}


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("importing"), "http://127.0.0.1:1").running() as running:
        yield running


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with FakeHub().running() as running:
        running.repos["org/model"] = Repo(FILES, card={"license": "mit", "base_model": "org/base"})
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield running


def told(control: House, *words: str) -> Any:
    """What a command prints as JSON."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        cli.main([*words, "--url", control.url, "--key", ADMIN, "--json"], standalone_mode=False)
    return json.loads(text.getvalue())


def test_a_model_of_the_hub_becomes_a_version(control: House, hub: FakeHub, tmp_path: Path) -> None:
    hub.cut_after = [4000]
    commit = hub.repos["org/model"].commit
    version = told(control, "models", "import", "hf:org/model@refs/pr/1", "imported:v1.0.0")
    assert sorted(one["path"] for one in version["files"]) == [
        "README.md",
        "safetensors/config.json",
        "safetensors/model.safetensors",
        "safetensors/tokenizer.json",
    ]
    source = version["source"]
    assert (source["from"], source["revision"], source["endpoint"]) == (f"hf:org/model@{commit}", "refs/pr/1", hub.url)
    digests = {one["path"].rpartition("/")[2]: one["digest"] for one in version["files"]}
    assert source["files"] == digests
    assert (version["metadata"]["licence"], version["metadata"]["lineage"]) == (
        "mit",
        [{"relation": "fine_tuned_from", "external": "hf:org/base"}],
    )
    assert not any("never" in path or "pytorch" in path or "modeling" in path for path, _, _ in hub.asked)
    assert not list((tmp_path / "cache" / "penstock" / "hub").rglob("*.safetensors"))  # it is in the registry now
    jobs = told(control, "models", "builds", "imported:v1.0.0")
    assert jobs["builds"] == jobs["jobs"] == []
    job = told(control, "models", "build", "imported:v1.0.0", "--precision", "int8", "--no-wait")
    assert (job["state"], job["precision"], job["option"]) == ("queued", "int8", None)
    assert told(control, "models", "builds", "--cancel", job["id"])["state"] == "cancelled"
    assert [one["state"] for one in told(control, "models", "builds")["jobs"]] == ["cancelled"]


def test_a_folder_becomes_the_same_version(control: House, hub: FakeHub, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for name, data in FILES.items():
        (plain / name).write_bytes(data)
    version = told(control, "models", "import", str(plain), "folder:v1.0.0")
    assert version["metadata"]["licence"] == "mit"
    # As huggingface_hub keeps it: a snapshot of links to blobs.
    blobs, snapshot = tmp_path / "models--o--m" / "blobs", tmp_path / "models--o--m" / "snapshots" / "c"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name, data in FILES.items():
        (blobs / f"x{name}").write_bytes(data)
        (snapshot / name).symlink_to(f"../../blobs/x{name}")
    assert told(control, "models", "import", str(snapshot), "snapshot:v1.0.0")["digest"] == version["digest"]
    (plain / "config.json").unlink()
    (plain / "config.json").symlink_to(tmp_path / "models--o--m" / "blobs" / "xconfig.json")
    with pytest.raises(BadRequest, match="links are not followed"):
        told(control, "models", "import", str(plain), "folder:v1.0.1")
    odd = {**FILES, "README.md": b"---\n- no mapping\n---\n"}
    hub.repos["org/odd"] = Repo(odd)
    files = told(control, "models", "import", "hf:org/odd", "odd:v1.0.0")["files"]
    assert "HUB-README.md" in {one["path"] for one in files}


def test_what_cannot_be_had_is_said(control: House, hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["org/pickled"] = Repo({"config.json": b"{}", "pytorch_model.bin": b"x"})
    hub.repos["org/gate"] = Repo(FILES, access="gated")
    refusals: tuple[tuple[tuple[str, ...], type[PenstockError], str], ...] = (
        (("hf:org/pickled", "a:v1.0.0"), BadRequest, "pickles"),
        (("hf:org/gate", "a:v1.0.0"), Forbidden, "gated"),
        (("hf:org/nothing", "a:v1.0.0"), NotFound, "no HF_TOKEN was shown"),
        (("hf:org/model",), BadRequest, "NAME:LABEL"),
        (("hf:org/model", "a"), BadRequest, "names no version"),
        (("hf:org/model", "a:v1.0.0", "--as", "b:v1.0.0"), BadRequest, "twice"),
        ((str(tmp_path / "nothing"), "a:v1.0.0"), NotFound, "There is no"),
    )
    for words, kind, match in refusals:
        with pytest.raises(kind, match=match):
            told(control, "models", "import", *words)
    for flags, match in (
        (("--suggest", "--precision", "int8"), "leave --precision out"),
        (("--usd-per-hour", "1"), "--suggest"),
    ):
        with pytest.raises(BadRequest, match=match):
            told(control, "models", "build", "a:v1.0.0", *flags)
