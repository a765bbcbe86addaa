"""Scans: safetensors whose headers lie, pickles, and versions without a licence."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.digests import sha256_digest
from penstock.registry.card import parse_card
from penstock.registry.manifest import make_manifest
from penstock.registry.scan import header_error, scan_version


def file(header: Any, data: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def tensor(begin: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape if shape is not None else [(end - begin) // 4], "data_offsets": [begin, end]}


def test_a_sound_file_has_nothing_wrong() -> None:
    whole = file({"__metadata__": {"format": "pt"}, "a": tensor(0, 8), "b": tensor(8, 24, [2, 2])}, 24)
    assert header_error(whole, len(whole)) is None
    empty = file({}, 0)
    assert header_error(empty, len(empty)) is None


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"abc", "no header"),
        (struct.pack("<Q", 1 << 60) + b"{}", "claims"),
        (file(b"[]", 0), "no JSON object"),
        (file(b"{", 0), "cannot be read"),
        (file(b'{"a": 1, "a": 2}', 0), "twice"),
        (file({"a": tensor(0, 8), "b": tensor(4, 12)}, 12), "overlaps"),
        (file({"a": tensor(0, 8), "b": tensor(12, 16)}, 16), "gap"),
        (file({"a": tensor(0, 8)}, 4), "end at byte"),
        (file({"a": tensor(0, 8)}, 12), "end at byte"),
        (file({"a": tensor(0, 8, [3])}, 8), "not as long"),
        (file({"a": tensor(0, 8, [-2])}, 8), "no shape"),
        (file({"a": tensor(0, 8, [1 << 62, 1 << 62])}, 8), "not as long"),
        (file({"a": tensor(0, 8, dtype="OBJECT")}, 8), "unknown type"),
        (file({"a": {"dtype": "F32"}}, 0), "cannot be read"),
        (file(b'{"a":' * 100_000, 0), "cannot be read"),
    ],
)
def test_a_header_that_lies_is_found(raw: bytes, words: str) -> None:
    found = header_error(raw, len(raw))
    assert found is not None
    assert words in found


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(raw: bytes) -> None:
    header_error(raw, len(raw))


def scanned(files: dict[str, bytes], card: str = "", metadata: dict[str, Any] | None = None) -> list[str]:
    manifest = make_manifest({path: (sha256_digest(data), len(data)) for path, data in files.items()})
    return [
        f"{one.path}: {one.words}"
        for one in scan_version(manifest, files, parse_card(card) if card else None, metadata or {})
    ]


def test_pickles_and_a_missing_licence_are_found() -> None:
    sound = {"model.safetensors": file({}, 0)}
    assert scanned(sound, metadata={"license": "mit"}) == []
    assert scanned({**sound, "LICENSE": b"MIT"}) == []
    assert scanned(sound, card="---\nlicense: mit\n---\n# x\n") == []
    assert "no licence" in scanned(sound)[0]
    for path, head in (("a.pt", b""), ("weights.bin", b"\x80\x04\x95"), ("x.bin", b"PK\x03\x04")):
        [found] = scanned({**sound, path: head}, metadata={"license": "mit"})
        assert found.startswith(path)
        assert "pickle" in found
