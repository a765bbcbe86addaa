"""The process that runs one statement: `Ask` on stdin, `Answer` on stdout.

Three fences, each enough against what the others stand for: DuckDB may open the named files only and its configuration is locked; one SELECT is
all that is run; the kernel bounds the process's memory and CPU time and lets it write no file.
"""

import datetime as dt
import decimal
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.core.errors import Unavailable
from penstock.journal.analytics.query import Answer, Ask, Bounds, Result, Source
from penstock.journal.analytics.store import connect, empty, listed
from penstock.journal.analytics.tables import TABLES, TableName

if TYPE_CHECKING:
    import duckdb

_ADDRESS_MB = 3072  # what the program itself may map, beside the query's memory
_LATE_S = 10.0  # after its time and this long the kernel ends the process
_PIECE = 100  # rows taken at once
_GONE = ("No such file", "No files found")  # DuckDB has one error for all that goes wrong with files


class Refused(Exception):
    """The statement is not run, or was stopped; the reason for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def main() -> None:
    """One statement."""
    ask = msgspec.json.decode(sys.stdin.buffer.read(), type=Ask)
    _fence(ask.bounds)
    try:
        answer = Answer(result=run(ask))
    except Refused as refused:
        answer = Answer(code=refused.code, message=str(refused))
    except FileNotFoundError as gone:
        answer = Answer(code="invalid_query", message=str(gone), gone=True)
    except Unavailable as missing:
        answer = Answer(code=missing.code, message=missing.message)
    except MemoryError:
        answer = Answer(code="query_too_costly", message=_memory(ask.bounds))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    sys.stdout.buffer.flush()
    os._exit(0)  # all is said: nothing of DuckDB's or of its threads is taken down, where one of them could abort


def run(ask: Ask) -> Result:
    """The statement's result.

    Raises:
        Refused: if it is none that may run, fails, or takes too much.
        FileNotFoundError: if a file is no longer there.
        Unavailable: if DuckDB is not installed.
    """
    con = connect(f"{ask.bounds.memory_mb}MB", temp_directory="", extension_directory="/nonexistent")
    import duckdb

    begun = time.monotonic()
    late = threading.Event()

    def stop() -> None:
        late.set()
        con.interrupt()

    timer = threading.Timer(ask.bounds.seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        _open(con, ask)
        _check(con, ask.sql)
        found = con.execute(ask.sql)
        columns = tuple((str(one[0]), str(one[1])) for one in found.description or ())
        rows, cut = _rows(found, ask.bounds)
    except duckdb.Error as error:
        raise _told(error, ask.bounds, late=late.is_set()) from None
    finally:
        timer.cancel()
        timer.join()
    return Result(columns=columns, rows=rows, cut=cut, seconds=time.monotonic() - begun)


def _fence(bounds: Bounds) -> None:
    address = (bounds.memory_mb + _ADDRESS_MB) << 20
    cpu = math.ceil(bounds.seconds + _LATE_S)
    for kind, most in (
        (resource.RLIMIT_AS, address),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    signal.alarm(cpu)


def _open(con: "duckdb.DuckDBPyConnection", ask: Ask) -> None:
    """The views, then the lock: from here on no other file can be opened, and no setting changed."""
    paths = [path for sources in ask.tables.values() for source in sources for path in source.paths]
    if paths:
        con.execute(f"SET allowed_paths = {listed(paths)}")
    for table in TABLES:
        con.execute(f"CREATE VIEW {table} AS {_view(table, ask.tables.get(table, ()))}")
    for setting in (
        "enable_external_access = false",
        "python_enable_replacements = false",
        "lock_configuration = true",
    ):
        con.execute(f"SET {setting}")


def _view(table: TableName, sources: Sequence[Source]) -> str:
    parts = [f"SELECT * FROM ({empty(table)})", "SELECT NULL::DATE AS day, NULL::VARCHAR AS tenant WHERE false"]
    parts += [
        f"SELECT * FROM read_parquet({listed(source.paths)}, hive_partitioning=true, "
        "hive_types={'day': DATE, 'tenant': VARCHAR}, hive_types_autocast=false)"
        for source in sources
    ]
    everything = " UNION ALL BY NAME ".join(parts)
    cost = ", cost_nanousd / 1e9 AS cost_usd" if table == "exchanges" else ""
    return f"SELECT day, tenant, * EXCLUDE (day, tenant){cost} FROM ({everything})"


def _check(con: "duckdb.DuckDBPyConnection", sql: str) -> None:
    import duckdb

    statements = con.extract_statements(sql)
    allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    if len(statements) != 1 or statements[0].type not in allowed:
        kinds = ", ".join(one.type.name for one in statements) or "nothing"
        raise Refused("invalid_query", f"One SELECT is run, over exchanges and observations; this is {kinds}.")


def _rows(found: "duckdb.DuckDBPyConnection", bounds: Bounds) -> tuple[tuple[tuple[Any, ...], ...], bool]:
    rows: list[tuple[Any, ...]] = []
    left = bounds.bytes
    while piece := found.fetchmany(_PIECE):
        for row in piece:
            shown = tuple(plain(value) for value in row)
            left -= len(msgspec.json.encode(shown))
            if len(rows) == bounds.rows or left < 0:
                return tuple(rows), True
            rows.append(shown)
    return tuple(rows), False


def plain(value: Any) -> Any:
    """`value` as JSON has it: what is no number there is null, times are ISO 8601, whole numbers too large for it are text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, decimal.Decimal):
        return plain(float(value))
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    return str(value)


def _told(error: Exception, bounds: Bounds, *, late: bool) -> Exception:
    import duckdb

    if late:
        return Refused("query_too_costly", f"The query took longer than {bounds.seconds:g} s: ask for less.")
    if isinstance(error, duckdb.OutOfMemoryException):
        return Refused("query_too_costly", _memory(bounds))
    if isinstance(error, duckdb.IOException) and any(words in str(error) for words in _GONE):
        return FileNotFoundError(str(error))
    return Refused("invalid_query", str(error).strip().partition("\n\nLINE")[0].replace("\n", " "))


def _memory(bounds: Bounds) -> str:
    return f"The query needs more than {bounds.memory_mb} MB of memory: ask for fewer days, or group by less."


if __name__ == "__main__":
    main()
