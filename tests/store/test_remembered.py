"""Files that were read once are not read again, and any change is seen."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.registry.blocks import Block, Recipe
from penstock.store.remembered import SETTLED_S, Remembered

RECIPE: Recipe = (Block("ab" * 32, 3), Block("cd" * 32, 2))


def later() -> float:
    return time.time() + SETTLED_S + 1


def found(index: Path, file: Path) -> Recipe | None:
    return Remembered(index).find({file: file.stat()}).get(file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "weights.bin"
    made.write_bytes(b"12345")
    return made


def test_what_was_read_is_remembered_until_it_changes(tmp_path: Path, file: Path) -> None:
    index = tmp_path / "cache" / "recipes.db"
    assert found(index, file) is None
    Remembered(index).note(file, file.stat(), RECIPE, later())
    assert found(index, file) == RECIPE
    same_time = file.stat()
    changes: list[Callable[[], object]] = [
        lambda: file.write_bytes(b"54321"),
        lambda: file.write_bytes(b"1234"),
        lambda: os.utime(file, ns=(same_time.st_atime_ns, same_time.st_mtime_ns)),  # the inode's own time still tells
        lambda: _copy(file).replace(file),
    ]
    for change in changes:
        Remembered(index).note(file, file.stat(), (Block("ab" * 32, file.stat().st_size),), later())
        assert found(index, file) is not None
        _tick(file, change)
        assert found(index, file) is None


def _copy(file: Path) -> Path:
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    return other


def _tick(file: Path, change: Callable[[], object]) -> None:
    """Change the file once the clock of its file system has gone on."""
    before = file.stat().st_ctime_ns
    probe = file.with_name("probe")
    deadline = time.monotonic() + 20
    while True:
        probe.write_bytes(b"")
        if probe.stat().st_ctime_ns > before:
            break
        assert time.monotonic() < deadline
    change()


def test_what_changed_just_before_it_was_read_is_not_remembered(tmp_path: Path, file: Path) -> None:
    index = tmp_path / "recipes.db"
    Remembered(index).note(file, file.stat(), RECIPE, file.stat().st_ctime + SETTLED_S / 2)
    assert found(index, file) is None


def test_an_index_that_cannot_be_read_is_as_good_as_empty(tmp_path: Path, file: Path) -> None:
    index = tmp_path / "recipes.db"
    index.write_bytes(b"no database" * 1000)
    Remembered(index).note(file, file.stat(), RECIPE, later())
    assert found(index, file) is None
    assert found(tmp_path / "weights.bin" / "recipes.db", file) is None
