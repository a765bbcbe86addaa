"""The keys of an installation: found by its settings, and wrapped by another master key."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock.core.errors import BadRequest, Conflict, Damaged, NotFound
from penstock.core.settings import KeySettings, Settings
from penstock.journal.keyring import master_key, open_keys, rotate_master_key
from penstock.journal.masterkey import Wrapping, make_key


def settings(data: Path, **keys: Any) -> Settings:
    return Settings(data=str(data), keys=KeySettings(**keys))


def test_a_fresh_installation_makes_its_keys(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="--data"):
        open_keys(settings(tmp_path), make=False)
    key = open_keys(settings(tmp_path)).key_of("acme", "")
    assert {path.name for path in tmp_path.iterdir()} == {"master.key", "keys"}
    assert open_keys(settings(tmp_path), make=False).find(key.id) == key


def test_the_master_key_comes_from_where_it_is_said(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere"
    with pytest.raises(Damaged, match="No such file"):
        open_keys(settings(tmp_path / "data", master_file=str(file)))
    text = make_key(file).hex()
    key = open_keys(settings(tmp_path / "data", master_file=str(file), folder=str(tmp_path / "wrapped"))).key_of(
        "a", ""
    )
    by_text = settings(tmp_path / "data", master=text, folder=str(tmp_path / "wrapped"))
    assert open_keys(by_text).find(key.id) == key
    assert not list(tmp_path.rglob("master.key"))
    with pytest.raises(Conflict, match="mark"):
        open_keys(
            msgspec.structs.replace(by_text, keys=KeySettings(master="ab" * 32, folder=str(tmp_path / "wrapped")))
        )


def test_rotation_in_place(tmp_path: Path) -> None:
    running = open_keys(settings(tmp_path))
    key = running.key_of("acme", "")
    before = make_key(tmp_path / "master.key")
    old, new, file = rotate_master_key(settings(tmp_path), None)
    assert (old, file) == (Wrapping(before).mark, tmp_path / "master.key")
    assert new == master_key(settings(tmp_path)).mark != old
    assert open_keys(settings(tmp_path)).find(key.id) == key
    assert open_keys(settings(tmp_path)).hash_key == running.hash_key
    assert running.key_of("acme", "user/new") == open_keys(settings(tmp_path)).key_of("acme", "user/new")
    with pytest.raises(Conflict):
        open_keys(settings(tmp_path, master=before.hex()))
    assert not list(tmp_path.glob("*.new"))
    assert not list(tmp_path.rglob("*.draft"))


def test_rotation_into_another_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    key = open_keys(settings(tmp_path / "data")).key_of("acme", "")
    there = tmp_path / "secret"
    _, new, file = rotate_master_key(settings(tmp_path / "data"), there)
    assert file == there
    moved = settings(tmp_path / "data", master_file=str(there))
    assert master_key(moved).mark == new
    assert open_keys(moved).find(key.id) == key
    with pytest.raises(Conflict):
        open_keys(settings(tmp_path / "data"))


def test_rotation_of_a_key_from_the_environment_needs_a_file(tmp_path: Path) -> None:
    given = settings(tmp_path, master="ab" * 32)
    key = open_keys(given).key_of("acme", "")
    with pytest.raises(BadRequest, match="name a file"):
        rotate_master_key(given, None)
    rotate_master_key(given, tmp_path / "new")
    assert open_keys(settings(tmp_path, master_file=str(tmp_path / "new"))).find(key.id) == key


def test_a_rotation_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    """Killed after the wrapping and before the new key has its name: neither start nor the next rotation is lost."""
    key = open_keys(settings(tmp_path)).key_of("acme", "")
    new = Wrapping(make_key(tmp_path / "master.key.new"))
    open_keys(settings(tmp_path)).rewrap(master_key(settings(tmp_path)), new)
    with pytest.raises(Conflict, match=new.mark):
        open_keys(settings(tmp_path))
    rotate_master_key(settings(tmp_path), None)
    assert master_key(settings(tmp_path)).mark == new.mark
    assert open_keys(settings(tmp_path)).find(key.id) == key


def test_a_rotation_with_the_wrong_old_key_changes_nothing(tmp_path: Path) -> None:
    key = open_keys(settings(tmp_path)).key_of("acme", "")
    with pytest.raises(Conflict):
        rotate_master_key(settings(tmp_path, master="cd" * 32), tmp_path / "new")
    assert open_keys(settings(tmp_path)).find(key.id) == key
