from pathlib import Path

import pytest

from penstock.core.errors import Damaged
from penstock.journal.subjects import hash_subject, load_subject_key


def test_the_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "subject.key"
    key = load_subject_key(path)
    assert load_subject_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["subject.key"]


def test_a_damaged_key_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("zz")
    with pytest.raises(Damaged, match="64 hexadecimal"):
        load_subject_key(tmp_path / "k")


def test_hashes_are_keyed_and_stable() -> None:
    one, two = b"1" * 32, b"2" * 32
    assert hash_subject(one, "ann") == hash_subject(one, "ann")
    assert len({hash_subject(one, "ann"), hash_subject(two, "ann"), hash_subject(one, "bob")}) == 3
    assert len(hash_subject(one, "ann")) == 32
    assert hash_subject(one, "") == ""
    assert hash_subject(one, "\ud800")
