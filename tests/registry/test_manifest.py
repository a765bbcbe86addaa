"""Manifests, file names and builds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.digests import sha256_digest
from penstock.core.errors import BadRequest, Conflict, Damaged
from penstock.registry.builds import builds_of
from penstock.registry.files import check_path, check_paths, refuse_pickle_bytes, refuse_pickle_name, role_of
from penstock.registry.manifest import canonical, make_manifest, manifest_digest, read_manifest, subfolder
from penstock.registry.states import check_deployable, move

D = sha256_digest(b"x")
parts = st.text(st.characters(codec="ascii", categories=["Ll", "Lu", "Nd"]), min_size=3, max_size=8).map(
    lambda t: "f" + t
)
files = st.dictionaries(
    st.lists(parts, min_size=1, max_size=3).map("/".join),
    st.tuples(st.just(D), st.integers(0, 1 << 40)),
    min_size=1,
    max_size=5,
)


@given(files)
def test_the_digest_does_not_depend_on_order_and_reading_gives_the_same(content: dict[str, tuple[str, int]]) -> None:
    try:
        manifest = make_manifest(content)
    except BadRequest:
        return  # two names that differ in case alone, or a folder that is a file
    turned = make_manifest(dict(reversed(content.items())))
    assert canonical(turned) == canonical(manifest)
    digest = manifest_digest(manifest)
    assert read_manifest(canonical(manifest), digest) == manifest
    assert manifest.size == sum(size for _, size in content.values())


def test_any_change_changes_the_digest() -> None:
    base = make_manifest({"a": (D, 1), "b": (D, 2)})
    others = [
        make_manifest({"a": (D, 1)}),
        make_manifest({"a": (D, 1), "c": (D, 2)}),
        make_manifest({"a": (D, 1), "b": (D, 3)}),
        make_manifest({"a": (D, 1), "b": (sha256_digest(b"y"), 2)}),
    ]
    assert manifest_digest(base) not in {manifest_digest(other) for other in others}


def test_a_changed_manifest_is_damage() -> None:
    manifest = make_manifest({"a": (D, 1)})
    text = canonical(manifest).replace(b'"size":1', b'"size":2')
    with pytest.raises(Damaged):
        read_manifest(text, manifest_digest(manifest))


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "..", "../x", "a/../b", "/etc/passwd", "a//b", "a/", "a\\b", "C:x", "a\x00b", "a\nb", "con", "a/NUL.txt",
        "a ", " a", "a.", "x" * 256, "e\u0301", "a\u202eb", "a\u200bb", "\ud800", "a|b", "a/./b", "~/x/..",
    ],
)  # fmt: skip
def test_hostile_file_names_are_refused(path: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_path(path)
    assert refused.value.code == "bad_file_name"


@given(st.text(max_size=40))
def test_a_name_that_is_taken_stays_in_its_folder(path: str) -> None:
    try:
        check_path(path)
    except BadRequest:
        return
    assert ".." not in path.split("/")
    assert not path.startswith("/")
    assert "\x00" not in path


@pytest.mark.parametrize("names", [["A", "a"], ["stra\u00dfe", "STRASSE"], ["a", "a/b"], ["A", "a/b"]])
def test_names_that_would_be_one_file_are_refused(names: list[str]) -> None:
    with pytest.raises(BadRequest):
        check_paths(names)


def test_too_many_files_are_refused() -> None:
    with pytest.raises(BadRequest, match="10000"):
        check_paths(f"f{i}" for i in range(10_001))


@pytest.mark.parametrize(
    "name", ["m.pkl", "a/m.pt", "x.PTH", "pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "m.ckpt"]
)
def test_pickles_are_refused_by_name(name: str) -> None:
    with pytest.raises(BadRequest, match="pickle"):
        refuse_pickle_name(name)


def test_pickles_are_refused_by_their_bytes() -> None:
    import pickle
    import zipfile
    from io import BytesIO

    for protocol in (2, 3, 4, 5):
        with pytest.raises(BadRequest, match="pickle"):
            refuse_pickle_bytes("weights.bin", pickle.dumps({"a": 1}, protocol=protocol))
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("model/data.pkl", b"x")
    with pytest.raises(BadRequest, match="pickle"):
        refuse_pickle_bytes("weights.bin", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(BadRequest, match="pickle"):
        refuse_pickle_bytes("weights.bin", archive.getvalue()[:512])
    refuse_pickle_bytes("weights.bin", bytes(range(256)))
    refuse_pickle_bytes("model.safetensors", b"\x80\x02\x00\x00\x00\x00\x00\x00{}")  # a header of 640 bytes


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("model.safetensors", "weights"), ("openvino-int8/openvino_model.bin", "weights"), ("tokenizer.json", "tokenizer"),
        ("openvino-int8/openvino_tokenizer.xml", "tokenizer"), ("config.json", "config"), ("chat_template.jinja", "tokenizer"),
        ("README.md", "card"), ("steps.py", "code"), ("notes.txt", "other"),
    ],
)  # fmt: skip
def test_roles_follow_from_names(path: str, role: str) -> None:
    assert role_of(path) == role


def test_a_version_without_files_or_with_a_wrong_entry_is_refused() -> None:
    for content in ({}, {"a": ("md5:1", 1)}, {"a": (D, -1)}, {"a": (D, 1 << 60)}):
        with pytest.raises(BadRequest):
            make_manifest(content)


def test_builds_are_folders_with_weights() -> None:
    manifest = make_manifest(
        {
            "safetensors/model.safetensors": (D, 9),
            "openvino-int8/openvino_model.bin": (D, 3),
            "openvino-int8/openvino_model.xml": (D, 3),
            "openvino-fp16/config.json": (D, 3),
        }
    )
    [build] = builds_of(manifest)
    assert (build.engine, build.precision, build.folder) == ("openvino", "int8", "openvino-int8")
    assert set(build.manifest.files) == {"openvino_model.bin", "openvino_model.xml"}
    assert build.digest == manifest_digest(build.manifest)
    assert subfolder(manifest, "openvino") is None


def test_a_blocked_version_cannot_be_deployed_until_it_is_cleared() -> None:
    with pytest.raises(Conflict, match="blocked"):
        check_deployable("m:v1.0.0", "blocked")
    check_deployable("m:v1.0.0", move("m:v1.0.0", "blocked", "committed"))
    with pytest.raises(Conflict):
        move("m:v1.0.0", "blocked", "archived")
