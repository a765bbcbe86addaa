"""Everything hostile that a stranger may hand in, over the real API and the real commands: refused with a sentence that names it, and no trace left.

One table for the API, one for commands, one for archives. After each attack the tables of the database, the store, the data folder and the
folder of temporary files are as they were.
"""

import json
import os
import random
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from penstock.core.errors import PenstockError
from penstock.registry.blocks import Block, batch_head, batches
from tests.cli.test_archive import HOSTILE, layout, members, packed
from tests.cli.test_cli import Control
from tests.cli.test_models_storage import folder, told
from tests.control.house import safetensors
from tests.control.storing import cut
from tests.registry.test_pickles import ARCHIVES, EVIL, archive, pickled

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
MOVING = {
    "audit",
    "upload_files",
    "packs",
    "leases",
    "sequences",
}  # reserves of packs, who leads, and numbers that go up: no trace of a version


class Site:
    """A control process with folders of its own, and what an attack must not change."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.temporary = base / "tmp"
        self.temporary.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TMPDIR", str(self.temporary))
            patch.setenv("PENSTOCK_CONTROL_PUSHES_PER_KEY", "10000")
            self.control = Control(base / "d")
        key = (self.control.data / "admin.key").read_text().strip()
        self.api = httpx.Client(
            base_url=f"{self.control.url}/api/v1",
            headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
            timeout=60,
            trust_env=False,
        )

        assert pushed(self, {"a.json": b'{"good": true}'}, model="good").status_code == 200

    def close(self) -> None:
        self.api.close()
        self.control.process.terminate()
        assert self.control.process.wait(90) == 0

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        with sqlite3.connect(f"file:{self.control.data / 'penstock.db'}?mode=ro", uri=True) as database:
            names = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
            for name in sorted(set(names) - MOVING):
                found[name] = database.execute(f'select * from "{name}"').fetchall()
            # When a file was looked at by the job that makes small is no trace.
            found["stored_files"] = database.execute("select digest, size from stored_files").fetchall()
            # A push that was begun is under way until its lease lapses.
            found["uploads"] = database.execute("select * from uploads where state != 'open'").fetchall()
            found["blocks in packs"] = database.execute("select count(*) from packs where state != 'open'").fetchall()
        for place in (self.control.data / "blobs", self.control.data / "builds", self.temporary):
            found[place.name] = sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("hostile"))
    yield made
    made.close()


# -- the API ---------------------------------------------------------------------------------------------------------------


def pushed(
    site: Site, files: dict[str, bytes], *, model: str = "bot", label: str = "v1.0.0", change: Any = None, **more: Any
) -> httpx.Response:
    """A push to its end, or to where it is refused; `change` spoils what it announces."""
    parts = {path: cut(data) for path, data in files.items()}
    data = {block.name: piece for part in parts.values() for block, piece in part}
    body: dict[str, Any] = {
        "label": label,
        "files": {
            path: {"size": len(files[path]), "blocks": [[b.name, b.size] for b, _ in part]}
            for path, part in parts.items()
        },
        "idempotency_key": os.urandom(8).hex(),
        **more,
    }
    if change is not None:
        change(body)
    begun = site.api.post(f"/models/{model}/uploads", content=json.dumps(body))
    if begun.status_code != 201:
        return begun
    for part in batches([Block(*block) for block in begun.json()["missing_blocks"]]):
        sent = b"".join(data.get(block.name, bytes(block.size)) for block in part)
        put = site.api.post(f"/blobs/blocks?upload={begun.json()['id']}", content=batch_head(part) + sent)
        if put.status_code != 201:
            site.api.post(f"/uploads/{begun.json()['id']}/commit")
            return put
    return site.api.post(f"/uploads/{begun.json()['id']}/commit")


FINE = {"config.json": b"{}"}


def named(path: str) -> Callable[[Site], httpx.Response]:
    return lambda site: pushed(site, {path: b"{}"})


def holding(path: str, data: bytes | Callable[[], bytes]) -> Callable[[Site], httpx.Response]:
    return lambda site: pushed(site, {**FINE, path: data() if callable(data) else data})


def labelled(label: str) -> Callable[[Site], httpx.Response]:
    return lambda site: pushed(site, FINE, label=label)


def modelled(model: str) -> Callable[[Site], httpx.Response]:
    return lambda site: pushed(site, FINE, model=model)


def lying(change: Callable[[dict[str, Any]], None]) -> Callable[[Site], httpx.Response]:
    return lambda site: pushed(site, {"model.bin": random.Random(1).randbytes(5000)}, change=change)


def nested(depth: int) -> Callable[[Site], httpx.Response]:
    """Metadata as deep as no encoder of ours would write them."""
    value = '{"label": "v1.0.0", "files": {}, "idempotency_key": "k", "metadata": {"annotations": {"x": %s}}}'
    return lambda site: site.api.post("/models/bot/uploads", content=value % ("[" * depth + "]" * depth))


def telling(metadata: Any) -> Callable[[Site], httpx.Response]:
    return lambda site: pushed(site, FINE, metadata=metadata)


def header(text: str, data: int = 0) -> bytes:
    return len(text.encode()).to_bytes(8, "little") + text.encode() + bytes(data)


def tensor(name: str, start: int, end: int, shape: str = "", dtype: str = "U8") -> str:
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape or f"[{end - start}]"},"data_offsets":[{start},{end}]}}'


def of_file(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["files"]["model.bin"].update({key: value})


def many_files(body: dict[str, Any]) -> None:
    body["files"] = {f"f{i}": body["files"]["model.bin"] for i in range(10_001)}


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)


class Attack(NamedTuple):
    """What is asked, and what the caller gets: status, code, and words of the sentence."""

    ask: Callable[[Site], httpx.Response]
    status: int
    code: str
    words: str


BAD_NAME = (400, "bad_file_name")
API: dict[str, Attack] = {
    # names of files
    "name: parent": Attack(named("../evil"), *BAD_NAME, "leaves its folder"),
    "name: parent inside": Attack(named("a/../../evil"), *BAD_NAME, "leaves its folder"),
    "name: absolute": Attack(named("/etc/cron.d/evil"), *BAD_NAME, "leaves its folder"),
    "name: backslash": Attack(named("..\\evil"), *BAD_NAME, "'\\\\'"),
    "name: drive": Attack(named("C:evil"), *BAD_NAME, "':'"),
    "name: empty part": Attack(named("a//b"), *BAD_NAME, "empty part"),
    "name: device": Attack(named("nul.json"), *BAD_NAME, "reserved"),
    "name: null byte": Attack(named("a\x00b"), *BAD_NAME, "U+0000"),
    "name: line end": Attack(named("a\nb"), *BAD_NAME, "U+000A"),
    "name: right to left": Attack(named("a\u202enosj.exe"), *BAD_NAME, "U+202E"),
    "name: invisible": Attack(named("con\u200bfig.json"), *BAD_NAME, "U+200B"),
    "name: not composed": Attack(named("e\u0301.json"), *BAD_NAME, "NFC"),
    "name: half a character": Attack(named("a\ud800b"), 400, "", "UTF-8|Unicode|surrogate|utf-8"),
    "name: too long": Attack(named("a" * 300), *BAD_NAME, "255 bytes"),
    "name: ends with a dot": Attack(named("a."), *BAD_NAME, "ends with a dot"),
    "name: two in one": Attack(lambda site: pushed(site, {"A.json": b"1", "a.json": b"2"}), *BAD_NAME, "case does not"),
    "name: file and folder": Attack(lambda site: pushed(site, {"a": b"1", "a/b": b"2"}), 400, "invalid_value", "folder of"),
    # labels and models
    "label: fullwidth digits": Attack(labelled("v\uff11.0.0"), 400, "", "v\uff11.0.0|label"),
    "label: arabic digits": Attack(labelled("run\u0667"), 400, "", "label|run"),
    "label: invisible": Attack(labelled("v1.0.0\u200b"), 400, "", "label"),
    "label: right to left": Attack(labelled("v1.0.0-\u202e1.cr"), 400, "", "label"),
    "label: cyrillic": Attack(labelled("v1.0.0-r\u0441"), 400, "", "label"),
    "label: line end": Attack(labelled("v1.0.0\n"), 400, "", "label"),
    "label: traversal": Attack(labelled("../v1.0.0"), 400, "", "label"),
    "label: leading zero": Attack(labelled("v01.0.0"), 400, "", "label"),
    "label: empty": Attack(labelled(""), 400, "", "label"),
    "label: too long": Attack(labelled("v1.0.0-" + "a" * 300), 400, "", "label"),
    "label: a day that is none": Attack(labelled("2026-02-30"), 400, "", "label|2026-02-30"),
    "model: traversal": Attack(modelled("..%2f..%2fevil"), 404, "not_found", "no"),
    "model: cyrillic": Attack(modelled("b\u043et"), 400, "", "b\u043et"),
    "model: right to left": Attack(modelled("bot%E2%80%AE"), 400, "", "model|name"),
    "model: with a label": Attack(modelled("bot-v1.0.0"), 400, "", "model's name and a label"),
    "model: too long": Attack(modelled("a" * 200), 400, "", "aaa"),
    # manifests that lie
    "manifest: another size": Attack(lying(of_file("size", 4999)), 400, "", "model.bin|4999"),
    "manifest: negative size": Attack(lying(of_file("size", -1)), 400, "", "size|model.bin|-1"),
    "manifest: enormous size": Attack(lying(of_file("size", 1 << 70)), 400, "", "size|model.bin"),
    "manifest: another digest": Attack(lying(of_file("digest", "sha256:" + "0" * 64)), 400, "digest_mismatch", "model.bin"),
    "manifest: no digest": Attack(lying(of_file("digest", "sha256:../../etc/passwd")), 400, "", "digest"),
    "manifest: another block": Attack(lying(of_file("blocks", [["0" * 64, 5000]])), 400, "digest_mismatch", "000000000000"),
    "manifest: blocks too large": Attack(lying(of_file("blocks", [["0" * 64, 5 << 20]])), 400, "", "model.bin|block"),
    "manifest: blocks of nothing": Attack(lying(of_file("blocks", [["0" * 64, 0]] * 1000)), 400, "", "model.bin|block"),
    "manifest: a path for a block": Attack(lying(of_file("blocks", [["../../../etc/passwd", 5000]])), 400, "", "model.bin|block"),
    "manifest: 10,001 files": Attack(lying(many_files), 400, "", "10000"),
    "manifest: a source to fetch": Attack(lying(of_file("source", "file:///etc/passwd")), 400, "", "source"),
    "manifest: a long idempotency key": Attack(lambda site: pushed(site, FINE, idempotency_key="k" * 100_000), 400, "", "idempotency_key"),
    # pickles
    "pickle: by name": Attack(holding("model.pt", b"any"), 400, "pickle_refused", "model.pt"),
    "pickle: of tensors, not allowed": Attack(holding("pytorch_model.bin", archive({"m/data.pkl": pickled({})})), 400, "pickle_refused", "pytorch_model.bin"),
    "pickle: under another name": Attack(holding("weights.bin", pickled({"a": 1}, 4)), 400, "pickle_refused", "weights.bin"),
    "pickle: an archive": Attack(holding("weights.npz", archive({"a.npy": b"x"})), 400, "pickle_refused", "weights.npz"),
    "pickle: a bomb": Attack(holding("weights.bin", ARCHIVES["a bomb"]), 400, "pickle_refused", "weights.bin"),
    **{f"pickle: {name}": Attack(holding("notes.txt", data), 400, "pickle_refused", "notes.txt") for name, data in EVIL.items()},
    # weights
    "weights: oversized header": Attack(holding("model.safetensors", (1 << 40).to_bytes(8, "little") + b"{}"), 400, "bad_weights", "1099511627776"),
    "weights: header beyond the file": Attack(holding("model.safetensors", (1 << 20).to_bytes(8, "little") + b"{}"), 400, "bad_weights", "does not hold"),
    "weights: 17 MiB of header": Attack(holding("model.safetensors", lambda: header("{" + " " * (17 << 20) + "}")), 400, "bad_weights", "at most"),
    "weights: 10,000 tensors": Attack(holding("model.safetensors", lambda: safetensors(**{f"t{i}": b"x" for i in range(10_000)})), 400, "bad_weights", "10000 tensors"),
    "weights: overlap": Attack(holding("model.safetensors", header("{" + tensor("a", 0, 8) + "," + tensor("b", 4, 12) + "}", 12)), 400, "bad_weights", "overlaps"),
    "weights: hole": Attack(holding("model.safetensors", header("{" + tensor("a", 0, 4) + "," + tensor("b", 8, 12) + "}", 12)), 400, "bad_weights", "hole"),
    "weights: beyond the end": Attack(holding("model.safetensors", header("{" + tensor("a", 0, 1 << 50) + "}", 8)), 400, "bad_weights", "model.safetensors"),
    "weights: a shape that lies": Attack(holding("model.safetensors", header("{" + tensor("a", 0, 8, "[281474976710655,281474976710655]") + "}", 8)), 400, "bad_weights", "shape"),
    "weights: a type that is none": Attack(holding("model.safetensors", header("{" + tensor("a", 0, 8, dtype="CODE") + "}", 8)), 400, "bad_weights", "CODE"),
    "weights: a long name": Attack(holding("model.safetensors", header("{" + tensor("a" * 2000, 0, 8) + "}", 8)), 400, "bad_weights", "2000 characters"),
    "weights: no JSON": Attack(holding("model.safetensors", header("[" * 10_000)), 400, "bad_weights", "model.safetensors"),
    "weights: empty": Attack(holding("model.safetensors", b""), 400, "bad_weights", "too short"),
    # processing, code, card, metadata
    "processing: no JSON": Attack(holding("processing.json", b"[" * 100_000), 400, "bad_processing", "processing.json"),
    "processing: a dear pattern": Attack(holding("processing.json", json.dumps({"output": [{"do": "replace", "pattern": "((a{100}){100}){100}"}]}).encode()), 400, "bad_processing", "processing.json.output.0.pattern"),
    "code: not called": Attack(holding("processing.py", b"import os"), 400, "bad_processing", "processing.py"),
    "card: not text": Attack(holding("README.md", b"\xff\xfe\x00"), 400, "", "README.md"),
    "card: too long": Attack(holding("README.md", b"#" * ((1 << 20) + 1)), 400, "", "1 MiB"),
    "card: a billion laughs": Attack(holding("README.md", f"---\n{LAUGHS}---\n# x".encode()), 400, "", "card|README|alias"),
    "card: an object": Attack(holding("README.md", b"---\nlicense: !!python/object/apply:os.system ['true']\n---\n# x"), 400, "", "card|README|front"),
    "metadata: a field of its own": Attack(telling({"source": "http://169.254.169.254/latest"}), 400, "", "metadata.source"),
    "metadata: too long": Attack(telling({"annotations": {"x": "a" * (1 << 20)}}), 400, "", "1 MiB"),
    "metadata: deep": Attack(nested(5000), 400, "", "parsing the body"),
    "metadata: a version that is none": Attack(telling({"lineage": [{"relation": "fine_tuned_from", "version": "../x:v1.0.0"}]}), 400, "", "metadata.lineage"),
    # the protocol
    "blob: a path for a digest": Attack(lambda site: site.api.put("/blobs/sha256:..%2f..%2f..%2fevil", content=b"x"), 404, "not_found", "nothing at"),
    "blob: other bytes": Attack(lambda site: site.api.put("/blobs/sha256:" + "0" * 64, content=b"x" * 5000), 404, "not_found", "No upload of yours"),
    "file: traversal": Attack(lambda site: site.api.get("/models/good/versions/v1.0.0/files/..%2f..%2f..%2fpenstock.db"), 404, "not_found", "no file"),
    "version: traversal": Attack(lambda site: site.api.get("/models/..%2f..%2fd/versions/v1.0.0"), 404, "not_found", "no|Not"),
    "blocks: a batch that lies": Attack(lambda site: site.api.post("/blobs/blocks?upload=up_none", content=struct.pack(">I", 1 << 31) + bytes(100)), 400, "", "block|body"),
    "request: headers of 100 KiB": Attack(lambda site: site.api.get("/models", headers={"x-long": "a" * 100_000}), 431, "header_too_large", "65536"),
    "request: 9 MiB of JSON": Attack(lambda site: site.api.post("/models/bot/uploads", content=b"[" * (9 << 20)), 413, "request_too_large", "8388608"),
    "request: deep JSON": Attack(lambda site: site.api.post("/models/bot/uploads", content=b"[" * 100_000), 400, "", "parsing the body"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(API))
def test_the_api_refuses_and_keeps_nothing(site: Site, name: str) -> None:
    attack = API[name]
    before = site.state()
    answer = attack.ask(site)
    assert answer.status_code == attack.status, f"{answer.status_code}: {answer.text[:300]}"
    if attack.words:
        error = answer.json()["error"]
        assert any(word in error["message"] + str(error.get("param")) for word in attack.words.split("|")), error
        assert not attack.code or error["code"] == attack.code, error
        assert len(error["message"]) < 2500
        assert "Traceback" not in answer.text
    assert site.state() == before


# -- commands --------------------------------------------------------------------------------------------------------------


def linked(place: Path) -> None:
    (place / "secrets.txt").symlink_to("/etc/passwd")


def linked_folder(place: Path) -> None:
    (place / "sub").symlink_to("/etc")


def linked_inside(place: Path) -> None:
    (place / "copy.json").symlink_to("config.json")


def piped(place: Path) -> None:
    os.mkfifo(place / "pipe")


def written(name: str, data: bytes) -> Callable[[Path], None]:
    def write(place: Path) -> None:
        (place / name).write_bytes(data)

    return write


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a link": (linked, "links are not followed"),
    "a folder that is a link": (linked_folder, "links are not followed"),
    "a link inside": (linked_inside, "links are not followed"),
    "a pipe": (piped, "neither a file nor a folder"),
    "a name right to left": (written("a\u202eb.json", b"{}"), "U+202E"),
    "a name not composed": (written("e\u0301.json", b"{}"), "NFC"),
    "a pickle by name": (written("model.pkl", b"x"), "is a pickle"),
    "a pickle by its bytes": (written("weights.bin", EVIL["memo"]), "is a pickle"),
    "a pickle of tensors": (written("pytorch_model.bin", archive({"m/data.pkl": pickled({})})), "is a pickle"),
    "an oversized header": (written("model.safetensors", (1 << 40).to_bytes(8, "little") + b"{}"), "1099511627776"),
    "10,000 tensors": (written("model.safetensors", safetensors(**{f"t{i}": b"x" for i in range(10_000)})), "10000"),
    "code": (written("processing.py", b"import os"), "no step there does"),
}


@pytest.mark.parametrize("name", list(FOLDERS))
def test_pushes_of_hostile_folders_leave_nothing(
    site: Site, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = folder(tmp_path / "s", config_ext_json=b"{}")
    make, words = FOLDERS[name]
    make(source)
    before = site.state()
    with pytest.raises(PenstockError) as refused:
        told(site.control, "models", "push", str(source), "hostile:v1.0.0")
    assert words in refused.value.message
    assert site.state() == before


@pytest.mark.parametrize(
    ("label", "words"), [("hostile:v\uff11.0.0", "v\uff11.0.0"), ("../x:v1.0.0", "../x"), ("hostile:v1.0.0\u200b", "v1.0.0"), ("hostile", "NAME:LABEL")]
)  # fmt: skip
def test_pushes_under_hostile_names_leave_nothing(site: Site, label: str, words: str, tmp_path: Path) -> None:
    before = site.state()
    with pytest.raises(PenstockError) as refused:
        told(site.control, "models", "push", str(folder(tmp_path / "s", config_ext_json=b"{}")), label)
    assert words in refused.value.message
    assert site.state() == before


# -- archives --------------------------------------------------------------------------------------------------------------


def holds(path: str, data: bytes) -> Callable[[], bytes]:
    """A sound archive of a version that is not."""
    files = {"config.json": b"{}", path: data}
    return lambda: packed(members(layout(files), files))


INSIDE: dict[str, Callable[[], bytes]] = {
    "a pickle": holds("weights.bin", EVIL["padding"]),
    "a pickle by name": holds("model.pkl", b"x"),
    "10,000 tensors": holds("model.safetensors", safetensors(**{f"t{i}": b"x" for i in range(10_000)})),
    "an oversized header": holds("model.safetensors", (1 << 40).to_bytes(8, "little") + b"{}"),
    "code that nothing calls": holds("processing.py", b"import os"),
    "a card of laughs": holds("README.md", f"---\n{LAUGHS}---\n# x".encode()),
}
SENTENCES = ("The archive is refused", "The file name", "The manifest", "'")


@pytest.mark.parametrize("name", [*sorted(HOSTILE), *(f"inside: {name}" for name in INSIDE)])
def test_imports_of_hostile_files_leave_nothing(
    site: Site, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, place in (("XDG_CACHE_HOME", tmp_path / "cache"), ("TMPDIR", site.temporary)):
        monkeypatch.setenv(variable, str(place))
    monkeypatch.setattr("tempfile.tempdir", str(site.temporary))
    file = tmp_path / "v.tar"
    make = INSIDE.get(name.removeprefix("inside: ")) if name.startswith("inside: ") else HOSTILE[name]
    assert make is not None
    file.write_bytes(make())
    before = site.state()
    with pytest.raises(PenstockError) as refused:
        told(site.control, "models", "import", str(file), "--as", "imported:v1.0.0")
    assert len(refused.value.message) > 20
    assert name.startswith("inside: ") or refused.value.message.startswith(SENTENCES), refused.value.message
    assert site.state() == before
    assert list(tmp_path.iterdir()) in ([file], [file, tmp_path / "cache"], [tmp_path / "cache", file])


def test_what_is_sound_is_taken_by_the_same_ways(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof that the ways above lead somewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert pushed(site, {"b.json": b"1"}, model="good", label="v1.0.1").status_code == 200
    assert told(site.control, "models", "push", str(folder(tmp_path / "s", a_ext_json=b"{}")), "good:v1.1.0")["digest"]
    sound = {"config.json": b"[]"}
    (tmp_path / "v.tar").write_bytes(packed(members(layout(sound), sound)))
    assert told(site.control, "models", "import", str(tmp_path / "v.tar"), "--as", "good:v1.2.0")["digest"]
    assert len(site.api.get("/models/good/versions").json()) == 4
