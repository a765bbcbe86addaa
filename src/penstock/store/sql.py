"""The database: SQLAlchemy Core over SQLite (WAL) or PostgreSQL, the same code for both.

Two kinds of transaction, nothing else: `read()` sees one consistent state; `write()` takes the write lock at its start
(SQLite: BEGIN IMMEDIATE) and commits when its block ends, or rolls back when that raises.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, insert, inspect, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from penstock.core.errors import BadRequest, Unavailable
from penstock.store.schema import sequences

MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 7330211  # any number that nobody else locks in this PostgreSQL database
_BUSY_S = 30.0
# What the statement is to blame for. All else is the database's state: away, locked, or a deadlock, which asyncpg tells by no class of its own.
_OURS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
_POOL_S = 30.0


class Database:
    """One database. Open it with `open_database`, which also brings its tables up to date."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.dialect = engine.dialect.name
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which all statements see the state of one moment.

        Raises:
            Unavailable: if the database cannot be reached or read.
        """
        async with self._connect() as connection:
            if self.dialect == "postgresql":
                await connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a write transaction: committed when the block ends, rolled back when it raises.

        On SQLite one writer goes at a time; on PostgreSQL rows are locked as they are changed (READ COMMITTED), so a block that
        decides from what it read bumps a sequence or compares a generation first.

        Raises:
            Unavailable: if the database cannot be reached or written, or stays locked.
        """
        if self.dialect != "sqlite":
            async with self._connect() as connection, connection.begin():
                yield connection
            return
        async with self._writing, self._connect() as connection:
            await connection.execution_options(penstock_write=True)
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def _connect(self) -> AsyncIterator[AsyncConnection]:
        try:
            connection = await self.engine.connect()
        except PoolTimeout:
            raise Unavailable(
                f"All connections to the database were busy for {_POOL_S:.0f} s.",
                code="database_unavailable",
                retry_after=1.0,
            ) from None
        except (OSError, DBAPIError) as error:
            raise _told(error) from error
        try:
            yield connection
        except _OURS:
            raise
        except DBAPIError as error:
            raise _told(error) from error
        finally:
            await connection.close()

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


def _told(error: OSError | DBAPIError) -> Unavailable:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return Unavailable(
        f"The database failed: {str(cause).strip() or error}.",
        code="database_unavailable",
        retry_after=1.0,
        hint="Look for a full disk, a wrong PENSTOCK_CONTROL_DATABASE or a server that is down.",
    )


async def open_database(url: str) -> Database:
    """The database at `url`, with its tables brought up to date.

    Args:
        url: `sqlite+aiosqlite:///FILE` or `postgresql+asyncpg://...` (`sqlite:///` and `postgresql://` are taken for these).

    Raises:
        BadRequest: if `url` is for another kind of database.
        Unavailable: if it cannot be opened.
    """
    engine = _engine(url)
    database = Database(engine)
    try:
        await _migrate(database)
    except BaseException:
        await engine.dispose()
        raise
    return database


def _engine(url: str) -> AsyncEngine:
    parsed = make_url(url)
    kind = parsed.drivername.partition("+")[0]
    if kind in {"postgresql", "postgres"}:
        return create_async_engine(
            parsed.set(drivername="postgresql+asyncpg"),
            pool_size=10,
            max_overflow=10,
            pool_pre_ping=True,
            pool_timeout=_POOL_S,
        )
    if kind != "sqlite":
        raise BadRequest(
            f"{parsed.render_as_string()!r}: use sqlite:///FILE or postgresql://...", param="control.database"
        )
    engine = create_async_engine(
        parsed.set(drivername="sqlite+aiosqlite"),
        connect_args={"timeout": _BUSY_S},
        pool_size=5,
        max_overflow=10,
        pool_timeout=_POOL_S,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _connected(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # we say BEGIN ourselves
        cursor = raw.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begun(connection: Connection) -> None:
        write = connection.get_execution_options().get("penstock_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


async def _migrate(database: Database) -> None:
    if await _is_newest(database):
        return
    async with database.write() as connection:
        if database.dialect == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        await connection.run_sync(_upgrade)


async def _is_newest(database: Database) -> bool:
    """Whether nothing is to be migrated: most starts, which then need not load Alembic."""
    newest = max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
    async with database.read() as connection:
        if not await connection.run_sync(lambda c: inspect(c).has_table("alembic_version")):
            return False
        return (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == [newest]


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def next_value(connection: AsyncConnection, name: str) -> int:
    """One more than the last value of the sequence `name`; the first is 1.

    The row stays locked until the transaction ends, so values are seen in order and without gaps, and writers that start with this
    go one after the other.
    """
    bump = (
        update(sequences)
        .where(sequences.c.name == name)
        .values(value=sequences.c.value + 1)
        .returning(sequences.c.value)
    )
    value = (await connection.execute(bump)).scalar_one_or_none()
    if value is None:
        try:
            async with connection.begin_nested():
                await connection.execute(insert(sequences).values(name=name, value=0))
        except IntegrityError:
            pass  # another transaction made it first
        value = (await connection.execute(bump)).scalar_one()
    return int(value)
