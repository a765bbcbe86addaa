import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.digests import sha256_digest
from penstock.core.errors import BadRequest, NotFound
from penstock.registry.manifest import (
    FileEntry,
    build_folders,
    canonical,
    changed,
    digest_of,
    make_manifest,
    read_manifest,
    within,
)


def entry(path: str, content: bytes = b"x") -> FileEntry:
    return FileEntry(path=path, digest=sha256_digest(content), size=len(content))


@given(st.permutations(["README.md", "openvino-int8/openvino_model.xml", "safetensors/model.safetensors"]))
def test_the_digest_does_not_depend_on_the_order_of_files(paths: list[str]) -> None:
    one = make_manifest([entry(path) for path in paths])
    assert digest_of(one) == digest_of(make_manifest([entry(path) for path in sorted(paths)]))


def test_the_digest_is_over_these_bytes() -> None:
    manifest = make_manifest([entry("a.txt", b"")])
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    text = f'{{"files":[{{"digest":"sha256:{empty}","path":"a.txt","role":"other","size":0}}],"format":1}}'
    assert canonical(manifest) == text.encode()


def test_it_is_read_as_it_was_written() -> None:
    manifest = make_manifest([entry("a"), entry("b/c")])
    assert read_manifest(canonical(manifest)) == manifest


def test_any_byte_changes_the_digest() -> None:
    assert digest_of(make_manifest([entry("a", b"1")])) != digest_of(make_manifest([entry("a", b"2")]))


@pytest.mark.parametrize(
    "wrong",
    [
        FileEntry(path="a", digest="sha256:12", size=1),
        FileEntry(path="a", digest="md5:" + "0" * 64, size=1),
        FileEntry(path="a", digest=sha256_digest(b""), size=-1),
        FileEntry(path="../a", digest=sha256_digest(b""), size=0),
    ],
)
def test_a_lying_entry_is_refused(wrong: FileEntry) -> None:
    with pytest.raises(BadRequest):
        make_manifest([wrong])


def test_a_folder_is_a_manifest_of_its_own() -> None:
    manifest = make_manifest(
        [entry("README.md"), entry("openvino-int8/openvino_model.xml"), entry("openvino-int8/openvino_model.bin")]
    )
    assert [file.path for file in within(manifest, "openvino-int8").files] == [
        "openvino_model.bin",
        "openvino_model.xml",
    ]
    assert build_folders(manifest) == {"int8": ("openvino", "openvino-int8")}
    with pytest.raises(NotFound, match="openvino-int8"):
        within(manifest, "safetensors")


def test_what_changed() -> None:
    old = make_manifest([entry("a"), entry("b")])
    new = make_manifest([entry("b", b"other"), entry("c")])
    assert changed(old, new) == {"added": ["c"], "removed": ["a"], "changed": ["b"]}


def test_an_unknown_field_is_refused() -> None:
    told = msgspec.to_builtins(make_manifest([entry("a")])) | {"extra": 1}
    with pytest.raises(BadRequest, match="extra"):
        read_manifest(msgspec.json.encode(told))
