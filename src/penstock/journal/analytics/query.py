"""SQL over the store: a process of its own runs it, which can read the files that it is named and nothing else, and is killed in time."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from penstock.core.errors import BadRequest, PenstockError, Unavailable
from penstock.journal.analytics.catalog import Catalog
from penstock.journal.analytics.tables import TABLES

_CHILD = "penstock.journal.analytics.child"
_START_S = 20.0  # beyond the statement's own time: to start, and to answer
_PASSED_ON = ("PYTHONPATH", "LD_LIBRARY_PATH", "TZ", "LANG")
_TRIES = 3


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What one statement may take. A result is cut at `rows` rows or `bytes` bytes, whichever comes first."""

    rows: int = 1000
    bytes: int = 8 * 1024 * 1024
    seconds: float = 30.0
    memory_mb: int = 512


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Files of one table and schema."""

    schema: int
    paths: tuple[str, ...]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told."""

    sql: str
    tables: dict[str, tuple[Source, ...]]
    bounds: Bounds


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`columns` are (name, type in SQL); `rows` hold what JSON can; `cut` says that there were more."""

    columns: tuple[tuple[str, str], ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    cut: bool = False
    seconds: float = 0.0


def told(result: Result) -> dict[str, Any]:
    """A result as the API and the command tell it."""
    return {
        "columns": [{"name": name, "type": type_} for name, type_ in result.columns],
        "rows": [list(row) for row in result.rows],
        "cut": result.cut,
        "seconds": result.seconds,
    }


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the process answers: a result, or what was wrong, and whether a file was gone."""

    result: Result | None = None
    code: str = ""
    message: str = ""
    gone: bool = False


def ask_for(folder: Path, sql: str, tenant: str, bounds: Bounds, days: tuple[str, str] | None = None) -> Ask:
    """`sql` over the files that are there now; of `tenant` alone, and of the days from the first to the last of `days`, if these are given.

    Raises:
        Damaged: if the store's log cannot be read.
    """
    found: dict[str, dict[int, list[str]]] = {table: {} for table in TABLES}
    for path, file in sorted(Catalog(folder).read().files.items()):
        if (not tenant or file.tenant == tenant) and (days is None or days[0] <= file.day <= days[1]):
            found[file.table].setdefault(file.schema, []).append(str((folder / path).absolute()))
    tables = {
        table: tuple(Source(schema=schema, paths=tuple(paths)) for schema, paths in sorted(by_schema.items()))
        for table, by_schema in found.items()
    }
    return Ask(sql=sql, tables=tables, bounds=bounds)


async def run_query(
    folder: Path, sql: str, *, tenant: str = "", bounds: Bounds | None = None, days: tuple[str, str] | None = None
) -> Result:
    """What `sql`, one SELECT over `exchanges` and `observations`, gives; of `tenant` and of `days` (first, last) alone, if they are given.

    Raises:
        BadRequest: if it is no such statement, fails, or needs more than `bounds` (code `query_too_costly`).
        Unavailable: if there is no store, DuckDB is not installed, or the process cannot be started.
    """
    if not folder.is_dir():  # noqa: ASYNC240 - one look
        raise Unavailable(
            f"There is no analytical store in {folder}.",
            code="analytics_missing",
            hint="The shipper writes it where penstock[analytics] is installed, after analytics.flush_s seconds.",
        )
    answer = Answer()
    for _ in range(_TRIES):  # a file that was merged away long ago while the statement began
        answer = await _run(ask_for(folder, sql, tenant, bounds or Bounds(), days))
        if not answer.gone:
            break
    if answer.result is not None:
        return answer.result
    if answer.code == "analytics_missing":
        raise Unavailable(answer.message, code="analytics_missing", hint="pip install 'penstock[analytics]'")
    raise _refusal(answer.code, answer.message)


def _refusal(code: str, message: str) -> PenstockError:
    if code == "query_too_costly":
        return BadRequest(message, code="query_too_costly", param="sql")
    return BadRequest(message, code="invalid_query", param="sql")


async def _run(ask: Ask) -> Answer:
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}  # no keys, no tokens
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", _CHILD, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd="/"
        )
    except OSError as error:
        raise Unavailable(f"The process that runs queries cannot be started: {error}.") from None
    try:
        async with asyncio.timeout(ask.bounds.seconds + _START_S):
            told, complaint = await process.communicate(msgspec.json.encode(ask))
    except TimeoutError:
        return Answer(code="query_too_costly", message=_too_long(ask.bounds))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        return msgspec.json.decode(told, type=Answer)
    except msgspec.DecodeError:
        return Answer(code="query_too_costly", message=_died(process.returncode, complaint))


def _too_long(bounds: Bounds) -> str:
    return f"The query took longer than {bounds.seconds:g} s; ask for fewer days, or less of them."


def _died(status: int | None, complaint: bytes) -> str:
    last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
    return (
        f"The query needed more than it may have: its process ended with {status}{f' ({last[:200]})' if last else ''}."
    )
