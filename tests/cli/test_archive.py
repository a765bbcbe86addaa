"""Archives from strangers: what is no version is refused with a sentence, and nothing of it is left; what is one is read as it was written."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from penstock.cli.models.archive import read_archive
from penstock.core.digests import sha256_digest
from penstock.core.errors import BadRequest, PenstockError
from penstock.registry.manifest import canonical, make_manifest, manifest_digest
from penstock.registry.oci import Layout, Read, Told, make_layout
from penstock.registry.tar import BLOCK, make_head, padded, read_extended, read_head

FILES = {
    "README.md": b"# bot",
    "safetensors/model.safetensors": bytes(3000),
    "openvino-int8/openvino_model.xml": b"<net/>",
}


def layout(files: dict[str, bytes] = FILES, **more: Any) -> Layout:
    manifest = make_manifest({path: (sha256_digest(data), len(data)) for path, data in files.items()})
    told = Told(model="bot", label="v1.0.0", manifest=canonical(manifest), **more)
    return make_layout(told, manifest_digest(manifest), "2026-11-23T00:00:00Z")


def members(made: Layout | None = None, files: dict[str, bytes] = FILES) -> dict[str, bytes]:
    """All members of an archive, by name."""
    made = made or layout(files)
    by_digest = {sha256_digest(data).removeprefix("sha256:"): data for data in files.values()}
    return {**made.documents, **{name: by_digest[name.rpartition("/")[2]] for name in made.files}}


def packed(content: dict[str, bytes]) -> bytes:
    return b"".join(make_head(name, len(body)) + padded(body) for name, body in content.items()) + bytes(2 * BLOCK)


def read(raw: bytes, folder: Path) -> tuple[Read, dict[str, Path]]:
    file = folder / "x.tar"
    file.write_bytes(raw)
    into = folder / "into"
    into.mkdir(exist_ok=True)
    return read_archive(file, into, Progress(disable=True))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    signatures = [{"public": "a" * 64, "envelope": "{}"}]
    evaluations = [{"suite": "questions", "result": {"figures": []}}]
    made = layout(signatures=signatures, evaluations=evaluations, metadata={"licence": "mit"}, licence="mit")
    found, places = read(packed(members(made)), tmp_path)
    assert {path: entry.size for path, entry in found.manifest.files.items()} == {p: len(d) for p, d in FILES.items()}
    assert (found.told.model, found.told.label, found.told.metadata) == ("bot", "v1.0.0", {"licence": "mit"})
    assert (found.told.signatures, found.told.evaluations) == (signatures, evaluations)
    for path, entry in found.manifest.files.items():
        assert places[entry.digest].read_bytes() == FILES[path]


def test_tools_of_others_open_it(tmp_path: Path) -> None:
    (tmp_path / "v.tar").write_bytes(packed(members()))
    copied = [
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        f"oci-archive:{tmp_path / 'v.tar'}",
        f"oci:{tmp_path / 'layout'}:v1.0.0",
    ]
    subprocess.run(copied, check=True, timeout=60, capture_output=True)  # it reads and compares every blob
    listed = ["umoci", "list", "--layout", str(tmp_path / "layout")]
    assert subprocess.run(listed, check=True, timeout=60, capture_output=True, text=True).stdout.split() == ["v1.0.0"]
    for data in FILES.values():
        assert (tmp_path / "layout" / "blobs" / "sha256" / hashlib.sha256(data).hexdigest()).read_bytes() == data


def test_pythons_tarfile_reads_it_and_is_read(tmp_path: Path) -> None:
    content = members()
    with tarfile.open(fileobj=io.BytesIO(packed(content))) as archive:
        assert {m.name: m.size for m in archive.getmembers()} == {name: len(body) for name, body in content.items()}
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            for folder in ("blobs", "blobs/sha256"):
                info = tarfile.TarInfo(folder)
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            for name, body in content.items():
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(body), 1.5 if form == tarfile.PAX_FORMAT else 1
                archive.addfile(info, io.BytesIO(body))
        place = tmp_path / str(form)
        place.mkdir()
        assert read(out.getvalue(), place)[0].told.label == "v1.0.0"


def _member(name: str, kind: bytes, link: str = "", body: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(body)
    return info.tobuf(tarfile.GNU_FORMAT) + padded(body)


def _sized(name: str, size: int) -> bytes:
    """A header that claims `size` bytes which do not follow."""
    return make_head(name, size)


def _bomb() -> bytes:
    body = bytes(9 << 20)
    return packed({"oci-layout": body})


def _many() -> bytes:
    one = _member("blobs", tarfile.DIRTYPE)
    return one * 21_000 + bytes(2 * BLOCK)


def _pax(body: bytes) -> bytes:
    info = tarfile.TarInfo("PaxHeaders/x")
    info.type, info.size = b"x", len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + padded(body)


def _without(name: str) -> bytes:
    return packed({key: body for key, body in members().items() if not key.endswith(name)})


def _changed(change: Callable[[dict[str, Any]], None]) -> bytes:
    """The archive with another image manifest, whose digests all fit."""
    made = layout()
    index = json.loads(made.documents["index.json"])
    place = "blobs/sha256/" + index["manifests"][0]["digest"].removeprefix("sha256:")
    image = json.loads(made.documents[place])
    change(image)
    body = json.dumps(image).encode()
    digest = sha256_digest(body)
    index["manifests"][0] |= {"digest": digest, "size": len(body)}
    content = {key: value for key, value in members(made).items() if key != place}
    content["blobs/sha256/" + digest.removeprefix("sha256:")] = body
    return packed({**content, "index.json": json.dumps(index).encode()})


def _other_path(image: dict[str, Any]) -> None:
    image["layers"][0]["annotations"]["org.cncf.model.filepath"] = "../../etc/passwd"


def _evil_manifest() -> bytes:
    """A version's manifest of our own form whose path leaves its folder."""
    data = b"x"
    text = json.dumps({"files": {"../../evil": {"digest": sha256_digest(data), "size": 1, "role": "other"}}}).encode()

    def change(image: dict[str, Any]) -> None:
        for one in image["layers"]:
            if "penstock.version" in one["mediaType"]:
                one |= {"digest": sha256_digest(text), "size": len(text)}

    content = _changed(change)[: -2 * BLOCK]
    return content + packed({f"blobs/sha256/{hashlib.sha256(text).hexdigest()}": text})


DIGEST = "blobs/sha256/" + "a" * 64
HOSTILE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no tar": lambda: b"PK\x03\x04" + bytes(2000),
    "cut off": lambda: packed(members())[:5000],
    "a gzip": lambda: b"\x1f\x8b\x08\x00" + bytes(600),
    "traversal": lambda: packed({"../../etc/passwd": b"x"}),
    "absolute": lambda: packed({"/etc/passwd": b"x"}),
    "traversal below blobs": lambda: packed({"blobs/sha256/../../../x": b"x"}),
    "another file": lambda: packed({**members(), "run-me.sh": b"x"}),
    "symbolic link": lambda: _member(DIGEST, tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": lambda: _member(DIGEST, tarfile.LNKTYPE, "oci-layout"),
    "device": lambda: _member(DIGEST, tarfile.CHRTYPE),
    "fifo": lambda: _member(DIGEST, tarfile.FIFOTYPE),
    "sparse": lambda: _member(DIGEST, tarfile.GNUTYPE_SPARSE),
    "long name": lambda: _member("././@LongLink", tarfile.GNUTYPE_LONGNAME, body=b"a" * 70_000),
    "a folder of its own": lambda: _member("etc", tarfile.DIRTYPE),
    "twice": lambda: packed(members())[: -2 * BLOCK] + packed(members()),
    "size that lies": lambda: _sized(DIGEST, 1 << 40),
    "bytes of another digest": lambda: packed({DIGEST: b"x"}),
    "large document": _bomb,
    "many members": _many,
    "huge pax header": lambda: _sized("x", 1 << 30)[:156] + b"x" + _sized("x", 1 << 30)[157:],
    "pax that lies": lambda: _pax(b"99 path=x\n"),
    "pax with a path": lambda: _pax(b"31 path=../../../../etc/passwd\n") + packed(members()),
    "pax sparse": lambda: _pax(b"22 GNU.sparse.major=1\n") + packed(members()),
    "no index": lambda: _without("index.json"),
    "no layout": lambda: _without("oci-layout"),
    "a file that is missing": lambda: _without(hashlib.sha256(FILES["README.md"]).hexdigest()),
    "index that is deep": lambda: packed({**members(), "index.json": b"[" * 200_000}),
    "no model": lambda: _changed(lambda image: image.update(artifactType="application/vnd.oci.image")),
    "other paths": lambda: _changed(_other_path),
    "metadata that are none": lambda: _changed(
        lambda image: image["annotations"].update({"dev.penstock.metadata": "["})
    ),
    "layers that are none": lambda: _changed(lambda image: image.update(layers=[None] * 3)),
    "paths that leave": _evil_manifest,
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_archive_is_refused_and_writes_nothing_elsewhere(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b" / "c"
    inside.mkdir(parents=True)
    with pytest.raises(PenstockError) as caught:
        read(HOSTILE[name](), inside)
    assert caught.value.message.startswith(("The archive is refused", "The file name", "The manifest")), (
        caught.value.message
    )
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert all(path == "a/b/c/x.tar" or path.startswith("a/b/c/into/") for path in written), written


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 20_000), byte=st.integers(1, 255))
def test_a_byte_that_is_changed_is_refused_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    raw = bytearray(packed(members()))
    at %= len(raw)
    raw[at] ^= byte
    try:
        found, _ = read(bytes(raw), tmp_path_factory.mktemp("flip"))
    except PenstockError:
        return
    manifest = make_manifest({path: (sha256_digest(data), len(data)) for path, data in FILES.items()})
    assert found.digest == manifest_digest(manifest)


def test_sizes_from_8_gib_on_are_written_and_read() -> None:
    raw = make_head(DIGEST, 9 << 30)
    first = read_head(raw[:BLOCK], {})
    assert first.kind == "extended"
    extended = read_extended(raw[BLOCK : BLOCK + first.size])
    head = read_head(raw[2 * BLOCK :], extended)
    assert (head.name, head.size) == (DIGEST, 9 << 30)
    with pytest.raises(BadRequest):
        read_extended(b"5 size\n")
