"""Builds whose bytes are checked against a signature while they are loaded: every byte that is flipped is told, with its file, block and tensor."""

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.digests import sha256_digest
from penstock.core.errors import Damaged
from penstock.core.provenance import Provenance
from penstock.engine.provenance import verify_build
from penstock.registry.blocks import block_name
from penstock.registry.manifest import canonical, make_manifest, manifest_digest
from penstock.registry.signing import public_of, sign_version

SEED = bytes(range(32))
XML = b'<layer id="0" name="head" type="Const"><data element_type="f32" offset="0" size="40"/></layer><layer id="1" name="tail" type="Const"><data element_type="f32" offset="40" size="60"/></layer>'
FILES = {"openvino_model.xml": XML, "openvino_model.bin": bytes(range(100)), "config.json": b"{}"}


def signed(folder: Path, *, seed: bytes = SEED, **more: Any) -> tuple[Path, Path]:
    """A build, and what vouches for it."""
    build = folder / "build"
    build.mkdir()
    for name, data in FILES.items():
        (build / name).write_bytes(data)
    manifest = make_manifest(
        {f"openvino-int8/{name}": (sha256_digest(data), len(data)) for name, data in FILES.items()}
    )
    binary = FILES["openvino_model.bin"]
    told = Provenance(
        version="bot:v1",
        manifest=canonical(manifest).decode(),
        folder="openvino-int8",
        envelopes=(sign_version(seed, digest=manifest_digest(manifest), name="bot:v1", at=1.0),),
        blocks={sha256_digest(binary): ((block_name(binary[:40]), 40), (block_name(binary[40:]), 60))},
    )
    file = folder / "provenance.json"
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(told, **more)))
    return build, file


def test_what_was_signed_is_loaded(tmp_path: Path) -> None:
    build, file = signed(tmp_path)
    assert verify_build(build, file, [public_of(bytes(32)), public_of(SEED)]).startswith("sha256:")


def test_every_byte_that_is_flipped_is_found_and_its_place_is_told(tmp_path: Path) -> None:
    build, file = signed(tmp_path)
    draw = random.Random(3)
    for name, data in FILES.items():
        for at in {0, len(data) - 1, *(draw.randrange(len(data)) for _ in range(12))}:
            (build / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(Damaged, match=f"openvino-int8/{name} is damaged") as caught:
                verify_build(build, file, [public_of(SEED)])
            if name.endswith(".bin"):
                assert ("block 0, bytes 0 to 39, in head" if at < 40 else "block 1, bytes 40 to 99, in tail") in str(
                    caught.value
                )
            (build / name).write_bytes(data)


def test_files_that_are_cut_added_or_gone_are_told(tmp_path: Path) -> None:
    build, file = signed(tmp_path)
    (build / "config.json").write_bytes(b"{")
    with pytest.raises(Damaged, match="1 bytes, and 2 were signed"):
        verify_build(build, file, [public_of(SEED)])
    (build / "config.json").unlink()
    with pytest.raises(Damaged, match=r"config\.json is missing"):
        verify_build(build, file, [public_of(SEED)])
    (build / "config.json").write_bytes(b"{}")
    (build / "evil.json").symlink_to("/etc/passwd")
    with pytest.raises(Damaged, match=r"evil\.json is in the build, but not"):
        verify_build(build, file, [public_of(SEED)])


def test_nobody_or_a_stranger_vouches_for_nothing(tmp_path: Path) -> None:
    build, file = signed(tmp_path)
    for trusted in ([], [public_of(bytes(32))]):
        with pytest.raises(Damaged, match="Nobody who is trusted has signed bot:v1"):
            verify_build(build, file, trusted)
    other = json.loads(file.read_bytes())
    other["manifest"] = other["manifest"].replace("config.json", "konfig.json")
    file.write_text(json.dumps(other))
    with pytest.raises(Damaged, match="Nobody who is trusted"):
        verify_build(build, file, [public_of(SEED)])
    file.write_text("{")
    with pytest.raises(Damaged, match="cannot be read"):
        verify_build(build, file, [public_of(SEED)])


def test_what_was_committed_needs_no_signature_where_its_digest_is_known(tmp_path: Path) -> None:
    build, file = signed(tmp_path, envelopes=())
    digest = sha256_digest(msgspec.json.decode(file.read_bytes(), type=Provenance).manifest.encode())
    assert verify_build(build, file, [], expected=digest) == digest
    with pytest.raises(Damaged, match="is to be loaded"):
        verify_build(build, file, [], expected="sha256:" + "0" * 64)
    with pytest.raises(Damaged, match="Nobody who is trusted"):
        verify_build(build, file, [public_of(SEED)], expected=digest)
    data = FILES["openvino_model.bin"]
    (build / "openvino_model.bin").write_bytes(data[:50] + b"!" + data[51:])
    with pytest.raises(Damaged, match=r"openvino_model\.bin is damaged: block 1, bytes 40 to 99, in tail"):
        verify_build(build, file, [], expected=digest)
