import errno
import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from penstock.core.errors import BadRequest, Conflict, Damaged, PenstockError, Unavailable
from penstock.supervisor.folder import DataFolder


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "data")
    made.prepare()
    return made


def test_it_is_made_for_its_owner_alone(folder: DataFolder) -> None:
    assert folder.root.stat().st_mode & 0o777 == 0o700
    assert folder.service_token.stat().st_mode & 0o777 == 0o600
    assert len(folder.service_token.read_text().strip()) >= 43


def test_preparing_again_keeps_the_token(folder: DataFolder) -> None:
    token = folder.service_token.read_text()
    folder.prepare()
    assert folder.service_token.read_text() == token


def test_one_process_alone_holds_it(folder: DataFolder) -> None:
    with folder.lock(folder.lock_file), pytest.raises(Conflict, match=f"already in use by pid {os.getpid()}"):
        folder.lock(folder.lock_file).__enter__()
    with folder.lock(folder.lock_file):
        pass


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    with pytest.raises(BadRequest, match="is not a folder"):
        DataFolder(tmp_path / "data").prepare()


def test_a_path_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="too long"):
        DataFolder(tmp_path / ("x" * 100)).prepare()


def test_a_full_disk_is_told(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=10, f_frsize=4096))
    with pytest.raises(Unavailable, match="is full") as raised:
        folder.prepare()
    assert raised.value.exit_code == 1


def test_a_folder_that_cannot_be_written_is_told(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(Unavailable, match="cannot be read and written by this user"):
        folder.prepare()


@pytest.mark.parametrize(
    "content", [b"this is no database, it is a text that somebody put here", b"SQLite format 3\0" * 300]
)
def test_a_damaged_database_is_named(folder: DataFolder, content: bytes) -> None:
    folder.database.write_bytes(content)
    with pytest.raises(Damaged, match=r"penstock\.db is damaged"):
        folder.check_files()


def test_a_sound_folder_passes(folder: DataFolder) -> None:
    folder.check_files()
    connection = sqlite3.connect(folder.database)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    folder.snapshot.write_bytes(b'{"generation": 1}')
    folder.check_files()


def test_a_damaged_snapshot_is_named(folder: DataFolder) -> None:
    folder.snapshot.write_bytes(b'{"generation": ')
    with pytest.raises(Damaged, match=r"snapshot\.json is damaged"):
        folder.check_files()


def test_an_empty_key_is_named(folder: DataFolder) -> None:
    folder.admin_key.write_bytes(b"")
    with pytest.raises(PenstockError, match=r"admin\.key is empty"):
        folder.check_files()
