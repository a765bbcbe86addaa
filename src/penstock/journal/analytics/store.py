"""The writer of the analytical store: batches in, files merged and removed; every step whole or not at all.

One process owns it (a lock in the folder says so). Nothing here waits or looks at the clock: times are handed in.
"""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.core.errors import Conflict, Unavailable
from penstock.journal.analytics.catalog import Catalog, File, State, sync_folder
from penstock.journal.analytics.tables import (
    ORDER,
    SCHEMA,
    TIME,
    Row,
    TableName,
    columns_of,
    day_of,
    folder_of,
    table_of,
    types_of,
)
from penstock.journal.format import Position

if TYPE_CHECKING:
    import duckdb

GRACE_S = 900.0  # a query that began before a merge may still read what was merged
_MEMORY = "256MB"
_OPTIONS = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880"


def connect(memory: str = _MEMORY, **config: Any) -> "duckdb.DuckDBPyConnection":
    """A DuckDB of one thread that loads nothing from anywhere.

    Raises:
        Unavailable: if it is not installed.
    """
    try:
        import duckdb
    except ImportError:
        raise Unavailable(
            "DuckDB is not installed.", code="analytics_missing", hint="pip install 'penstock[analytics]'"
        ) from None
    quiet = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    return duckdb.connect(":memory:", config={"threads": 1, "memory_limit": memory, **quiet, **config})


class Removed:
    """Rows that went, since the process started, by reason."""

    __slots__ = ("bound", "repeated", "retention")

    def __init__(self) -> None:
        self.retention = 0  # older than their tenant's policy keeps
        self.bound = 0  # the store had grown to its bound
        self.repeated = 0  # ids that stood there twice


class AnalyticsStore:
    """The store in `folder`."""

    def __init__(self, folder: Path) -> None:
        """Take the folder.

        Raises:
            Conflict: if another process has it.
            Unavailable: if DuckDB is not installed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise Conflict(f"Another shipper writes the analytical store in {folder}.", param=str(folder)) from None
        self.folder = folder
        self.removed = Removed()
        self._catalog = Catalog(folder)
        self.state: State = self._catalog.read()
        self._catalog.sweep(self.state)
        self._duck = connect(temp_directory=str(folder / "spill"))

    def close(self) -> None:
        """Let go of the folder."""
        self._duck.close()
        os.close(self._lock)

    def add(self, worker: str, start: Position, end: int, rows: Sequence[Row], now: float) -> None:
        """Take in a batch of `worker`'s journal, from `start` to the byte `end`, and that it has been.

        The names of its files follow from its place in the journal, so that writing it again after a crash writes the same files.

        Raises:
            OSError: if the disk refuses; then nothing has changed.
        """
        parts: dict[tuple[TableName, str, str], list[Row]] = {}
        for row in rows:
            record = row.record
            parts.setdefault((table_of(record), day_of(record), record.tenant), []).append(row)
        name = f"{worker}-{start.segment:010d}-{start.offset:012d}-{end:012d}.parquet"
        new = [self._write(table, day, tenant, name, part) for (table, day, tenant), part in sorted(parts.items())]
        self.state = self._catalog.commit(
            self.state, now, positions={worker: Position(start.segment, end)}, new=tuple(new)
        )

    def merge(self, files: Sequence[File], now: float) -> None:
        """Make one file, sorted by time, of `files` of one partition; of rows with the same id one stays.

        Raises:
            OSError: if the disk refuses; then nothing has changed.
        """
        first = files[0]
        columns = ", ".join(name for name, _ in types_of(first.table))
        paths = [str(self.folder / file.path) for file in files]
        query = (
            f"SELECT {columns} FROM (SELECT * FROM ({empty(first.table)}) UNION ALL BY NAME SELECT * FROM read_parquet("
            f"{listed(paths)}, union_by_name=true, hive_partitioning=false)) "
            f"QUALIFY row_number() OVER (PARTITION BY id ORDER BY {ORDER[first.table]}) = 1 ORDER BY {TIME[first.table]}, id"
        )
        name = f"merged-{self.state.number + 1:010d}.parquet"
        made = self._copy(query, first.table, first.day, first.tenant, name, merged=True)
        self.removed.repeated += sum(file.rows for file in files) - made.rows
        self.state = self._catalog.commit(self.state, now, new=(made,), gone=tuple(file.path for file in files))

    def remove(self, files: Sequence[File], now: float) -> None:
        """Let `files` be no part of the store any more; they go from the disk at the next `tidy`.

        Raises:
            OSError: if the disk refuses; then nothing has changed.
        """
        self.state = self._catalog.commit(self.state, now, gone=tuple(file.path for file in files))

    def tidy(self, now: float, grace_s: float = GRACE_S) -> None:
        """Delete files that have been of no use for `grace_s` seconds."""
        self.state = self._catalog.forget_retired(self.state, now - grace_s)

    def bytes(self) -> int:
        """Size of all files of the store."""
        return sum(file.bytes for file in self.state.files.values())

    def _write(self, table: TableName, day: str, tenant: str, name: str, rows: Sequence[Row]) -> File:
        batch = columns_of(table, rows)
        self._duck.register("batch", batch)
        try:
            columns = ", ".join(f"TRY_CAST({column} AS {type_}) AS {column}" for column, type_ in types_of(table))
            return self._copy(f"SELECT {columns} FROM batch", table, day, tenant, name)
        finally:
            self._duck.unregister("batch")

    def _copy(self, query: str, table: TableName, day: str, tenant: str, name: str, *, merged: bool = False) -> File:
        import duckdb

        folder = self.folder / folder_of(table, day, tenant)
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"{name}.draft"
        try:
            counted = self._duck.execute(f"COPY ({query}) TO {quoted(str(draft))} ({_OPTIONS})").fetchone()
        except duckdb.Error as error:
            raise OSError(f"The file {draft} could not be written: {error}") from error
        number = os.open(draft, os.O_RDONLY)
        try:
            os.fsync(number)
            size = os.fstat(number).st_size
        finally:
            os.close(number)
        draft.replace(folder / name)
        sync_folder(folder)
        assert counted is not None
        return File(
            table=table,
            day=day,
            tenant=tenant,
            name=name,
            rows=int(counted[0]),
            bytes=size,
            schema=SCHEMA,
            merged=merged,
        )


def quoted(text: str) -> str:
    """A string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def listed(texts: Sequence[str]) -> str:
    """A list of strings in SQL."""
    return "[" + ", ".join(quoted(text) for text in texts) + "]"


def empty(table: TableName) -> str:
    """A query of no rows with all columns of `table`, as its files have them."""
    return "SELECT " + ", ".join(f"NULL::{type_} AS {name}" for name, type_ in types_of(table)) + " WHERE false"
