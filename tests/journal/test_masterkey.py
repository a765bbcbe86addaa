"""The master key and the root that it wraps."""

import os
from pathlib import Path

import pytest

from penstock.core.errors import Conflict, Damaged
from penstock.journal.keyfiles import FileKeystore
from penstock.journal.masterkey import Wrapping, WrongKey, make_key, parse_key, read_key


def test_a_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    key = make_key(path)
    assert len(key) == 32
    assert make_key(path) == read_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["master.key"]


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "00" * 33, "g" * 64])
def test_what_is_no_key_is_named_and_neither_shown_nor_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "k"
    path.write_text(text)
    with pytest.raises(Damaged, match="64 hexadecimal digits") as caught:
        make_key(path)
    assert path.read_text() == text
    assert not text or text not in caught.value.message
    with pytest.raises(Damaged, match=r"keys\.master"):
        parse_key(text, "keys.master")


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="No such file"):
        read_key(tmp_path / "none")


def test_what_is_wrapped_opens_only_as_what_it_is(tmp_path: Path) -> None:
    one, other = Wrapping(bytes(32)), Wrapping(b"\1" * 32)
    key = os.urandom(32)
    wrapped = one.wrap(key, b"a")
    assert one.unwrap(wrapped, b"a") == key
    assert one.wrap(key, b"a") != wrapped
    assert one.mark != other.mark
    for wrapping, data, about in (
        (other, wrapped, b"a"),
        (one, wrapped, b"b"),
        (one, wrapped[:-1], b"a"),
        (one, b"", b"a"),
    ):
        with pytest.raises(WrongKey):
            wrapping.unwrap(data, about)


def test_the_wrong_master_key_is_told_at_the_start(tmp_path: Path) -> None:
    right, wrong = Wrapping(b"\1" * 32), Wrapping(b"\2" * 32)
    FileKeystore.open(tmp_path / "keys", right).close()
    with pytest.raises(Conflict, match=f"{right.mark}.*{wrong.mark}") as caught:
        FileKeystore.open(tmp_path / "keys", wrong)
    assert caught.value.code == "wrong_master_key"
    assert "PENSTOCK_KEYS_MASTER" in (caught.value.hint or "")


def test_another_master_key_opens_the_same_keys(tmp_path: Path) -> None:
    old, new = Wrapping(b"\1" * 32), Wrapping(b"\2" * 32)
    running = FileKeystore.open(tmp_path / "keys", old)
    key = running.key_of("acme", "user/a")
    with pytest.raises(Conflict):
        running.rewrap(new, old)
    running.rewrap(old, new)
    made_after = running.key_of("acme", "user/b")  # who runs goes on
    with pytest.raises(Conflict):
        FileKeystore.open(tmp_path / "keys", old)
    opened = FileKeystore.open(tmp_path / "keys", new)
    assert opened.hash_key == running.hash_key
    assert (opened.key_of("acme", "user/a"), opened.key_of("acme", "user/b")) == (key, made_after)


def test_a_plain_key_for_names_is_taken_over_and_removed(tmp_path: Path) -> None:
    former = tmp_path / "subject.key"
    names = make_key(former)
    master = Wrapping(b"\1" * 32)
    store = FileKeystore.open(tmp_path / "keys", master, former=former)
    assert store.hash_key == names
    assert not former.exists()
    assert FileKeystore.open(tmp_path / "keys", master, former=former).hash_key == names
    for path in (tmp_path / "keys").iterdir():
        assert names.hex().encode() not in path.read_bytes()
        assert names not in path.read_bytes()


def test_a_plain_key_that_was_not_taken_over_is_left(tmp_path: Path) -> None:
    """After a downgrade and an upgrade it alone links names to the hashes of the time between."""
    former = tmp_path / "subject.key"
    names = make_key(former)
    master = Wrapping(b"\1" * 32)
    FileKeystore.open(tmp_path / "keys", master, former=former).close()
    again = make_key(former)
    store = FileKeystore.open(tmp_path / "keys", master, former=former)
    assert store.hash_key == names != again
    assert make_key(former) == again
    former.write_text("no key")
    FileKeystore.open(tmp_path / "keys", master, former=former).close()
    assert former.read_text() == "no key"


def test_a_damaged_root_is_not_replaced(tmp_path: Path) -> None:
    master = Wrapping(b"\1" * 32)
    FileKeystore.open(tmp_path / "keys", master).close()
    root = tmp_path / "keys" / "root.json"
    whole = root.read_bytes()
    digits = whole.index(b'"root":"') + 40
    for broken in (
        whole[:30],
        whole[:digits] + (b"1" if whole[digits : digits + 1] == b"0" else b"0") + whole[digits + 1 :],
    ):
        root.write_bytes(broken)
        with pytest.raises(Damaged, match="damaged"):
            FileKeystore.open(tmp_path / "keys", master)
        assert root.read_bytes() == broken
