"""Blocks that lie on this host already, within files that were fetched before: where, not the bytes again.

What the index says is a guess: the file may have changed or gone since. A block that is taken from it is checked against its name.
"""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from penstock.registry.blocks import Block, Recipe, block_name

_TABLES = """
CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, mtime INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS blocks (name BLOB NOT NULL, file INTEGER NOT NULL REFERENCES files ON DELETE CASCADE, start INTEGER NOT NULL,
  PRIMARY KEY (name, file)) WITHOUT ROWID;
"""
_MOST_FILES = 20_000


class Nearby:
    """The index in one file. One that cannot be read or written is as good as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, block: Block) -> bytes | None:
        """The bytes of `block`, checked, if a file of this host holds them."""
        for path, start in self._places(block.name):
            with suppress(OSError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    data = os.pread(fd, block.size, start)
                finally:
                    os.close(fd)
                if len(data) == block.size and block_name(data) == block.name:
                    return data
        return None

    def known(self, blocks: Iterable[Block]) -> set[str]:
        """The names of those that the index has a place for."""
        wanted = {bytes.fromhex(block.name): block.name for block in blocks}
        found: set[str] = set()
        names = list(wanted)
        with suppress(sqlite3.Error, OSError), closing(self._open()) as connection:
            for start in range(0, len(names), 500):
                part = names[start : start + 500]
                marks = ",".join("?" * len(part))
                rows = connection.execute(f"SELECT DISTINCT name FROM blocks WHERE name IN ({marks})", part)  # noqa: S608 - marks alone
                found.update(wanted[name] for (name,) in rows)
        return found

    def add(self, path: Path, recipe: Recipe) -> None:
        """Note that the file at `path` is made of `recipe`."""
        with suppress(sqlite3.Error, OSError), closing(self._open()) as connection, connection:
            stat = path.stat()
            connection.execute("DELETE FROM files WHERE path = ?", (str(path.resolve()),))
            added = connection.execute(
                "INSERT INTO files (path, size, mtime) VALUES (?, ?, ?)",
                (str(path.resolve()), stat.st_size, stat.st_mtime_ns),
            )
            rows, at = [], 0
            for block in recipe:
                rows.append((bytes.fromhex(block.name), added.lastrowid, at))
                at += block.size
            connection.executemany("INSERT OR IGNORE INTO blocks (name, file, start) VALUES (?, ?, ?)", rows)
            connection.execute("DELETE FROM files WHERE id <= (SELECT max(id) FROM files) - ?", (_MOST_FILES,))

    def _places(self, name: str) -> list[tuple[str, int]]:
        with suppress(sqlite3.Error, OSError), closing(self._open()) as connection:
            found = connection.execute(
                "SELECT id, path, start, size, mtime FROM blocks JOIN files ON file = id WHERE name = ? ORDER BY id DESC",
                (bytes.fromhex(name),),
            ).fetchall()
            places = []
            for identity, path, start, size, mtime in found:
                if _same(path, size, mtime):
                    places.append((path, start))
                else:
                    with connection:
                        connection.execute("DELETE FROM files WHERE id = ?", (identity,))
            return places
        return []

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=5)
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(_TABLES)
        return connection


def _same(path: str, size: int, mtime: int) -> bool:
    try:
        stat = Path(path).stat()
    except OSError:
        return False
    return stat.st_size == size and stat.st_mtime_ns == mtime
