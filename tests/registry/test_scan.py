"""Scans: safetensors whose headers lie, pickles, and versions without a licence."""

import json
import struct
from typing import Any

from penstock.core.digests import sha256_digest
from penstock.registry.card import parse_card
from penstock.registry.manifest import make_manifest
from penstock.registry.scan import scan_version


def file(header: Any, data: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def tensor(begin: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape if shape is not None else [(end - begin) // 4], "data_offsets": [begin, end]}


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


def test_a_lying_header_is_found_and_a_sound_one_is_not() -> None:
    sound = file({"__metadata__": {"format": "pt"}, "a": tensor(0, 8), "b": tensor(8, 24, [2, 2])}, 24)
    assert scanned({"x.safetensors": sound}, metadata={"licence": "mit"}) == []
    for raw in (b"abc", struct.pack("<Q", 1 << 60) + b"{}", file({"a": tensor(0, 8), "b": tensor(4, 12)}, 12)):
        [found] = scanned({"x.safetensors": raw}, metadata={"licence": "mit"})
        assert found.startswith("x.safetensors: ")
