import io
import pickle

import numpy as np
import pytest

from penstock.core.errors import BadRequest
from penstock.registry.files import check_path, check_paths, is_pickle, role_of


@pytest.mark.parametrize(
    "path",
    [
        "", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/", "a\\b", "C:x", "a\x00b", "a\nb", "con", "a/NUL.txt", "x.", " x", "x ",
        "e\u0301.txt", "a\u202eb", "x" * 256, "a\u200bb",
    ],
)  # fmt: skip
def test_hostile_names_are_refused(path: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_path(path)
    assert refused.value.code == "bad_file_name"


@pytest.mark.parametrize(
    "path", ["README.md", "openvino-int8/openvino_model.bin", ".gitattributes", "a/b/c.json", "modèle.txt"]
)
def test_usual_names_are_taken(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize("paths", [[], ["a", "A"], ["a", "a"], ["a", "a/b"], ["straße", "STRASSE"]])
def test_names_that_would_meet_are_refused(paths: list[str]) -> None:
    with pytest.raises(BadRequest):
        check_paths(paths)


def test_roles_are_told_from_names() -> None:
    assert role_of("safetensors/model.safetensors") == "weights"
    assert role_of("openvino-int8/openvino_tokenizer.xml") == "tokenizer"
    assert role_of("README.md") == "card"
    assert role_of("x/config.json") == "config"


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_is_recognised(protocol: int) -> None:
    assert is_pickle(pickle.dumps({"a": [1, 2]}, protocol=protocol))


def test_an_old_pickle_that_calls_is_recognised() -> None:
    assert is_pickle(b"cos\nsystem\n(S'true'\ntR.")


def test_an_archive_with_pickles_is_recognised() -> None:
    archive = io.BytesIO()
    np.savez(archive, x=np.zeros(3))
    assert is_pickle(archive.getvalue())


@pytest.mark.parametrize("head", [b"", b"\x00" * 64, b'{"__metadata__":{}}', np.arange(64, dtype=np.float16).tobytes()])
def test_raw_weights_are_no_pickles(head: bytes) -> None:
    assert not is_pickle(head)
