"""What files of this host are made of, as somebody has read before: not to be read again while their times say that nothing changed.

Unlike what `nearby` knows, nothing checks this later: so it holds only what device, inode, size and both times, to the nanosecond, vouch for. A file that
changed just before it was read is not remembered, because a change in the same tick of the clock would leave the same times (git calls it racy).
"""

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from penstock.registry.blocks import Recipe, pack_recipe, unpack_recipe

SETTLED_S = 2.0  # since the last change of a file; times of some file systems are as coarse
_TABLES = """
CREATE TABLE IF NOT EXISTS recipes (path TEXT PRIMARY KEY, stamp TEXT NOT NULL, blocks BLOB NOT NULL, used REAL NOT NULL);
"""
_MOST_FILES = 20_000


class Remembered:
    """The index in one file. One that cannot be read or written is as good as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, files: Mapping[Path, os.stat_result]) -> dict[Path, Recipe]:
        """The blocks of those files that were read when they were as they are now."""
        found = {}
        with suppress(sqlite3.Error, OSError, ValueError), closing(self._open()) as connection:
            for path, stat in files.items():
                statement = "SELECT blocks FROM recipes WHERE path = ? AND stamp = ?"
                row = connection.execute(statement, (str(path.resolve()), _stamp(stat))).fetchone()
                recipe = None if row is None else unpack_recipe(row[0])
                if recipe is not None and sum(block.size for block in recipe) == stat.st_size:
                    found[path] = recipe
        return found

    def note(self, path: Path, stat: os.stat_result, recipe: Recipe, begun: float) -> None:
        """The file at `path`, which was as `stat` says before and after it was read, is made of `recipe`.

        Args:
            path: where it is.
            stat: what was asked of the open file.
            recipe: its blocks.
            begun: the time before the reading began, in Unix seconds.
        """
        if max(stat.st_ctime_ns, stat.st_mtime_ns) > (begun - SETTLED_S) * 1e9:
            return
        with suppress(sqlite3.Error, OSError), closing(self._open()) as connection, connection:
            connection.execute(
                "INSERT OR REPLACE INTO recipes (path, stamp, blocks, used) VALUES (?, ?, ?, ?)",
                (str(path.resolve()), _stamp(stat), pack_recipe(recipe), begun),
            )
            connection.execute(
                "DELETE FROM recipes WHERE path IN (SELECT path FROM recipes ORDER BY used DESC LIMIT -1 OFFSET ?)",
                (_MOST_FILES,),
            )

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=5)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_TABLES)
        return connection


def same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether nothing tells of a change between the two."""
    return _stamp(before) == _stamp(after)


def _stamp(stat: os.stat_result) -> str:
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
