"""The database port: the same promises on SQLite and on PostgreSQL."""

import asyncio
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from penstock.core.errors import BadRequest, Unavailable
from penstock.store import schema
from penstock.store.sql import MIGRATIONS, Database, next_value, open_database
from tests.postgres import PostgresServer


async def test_migrations_make_exactly_the_tables_of_the_schema(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, schema.metadata))

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_opening_again_keeps_what_is_there(empty_database_url: str) -> None:
    first = await open_database(empty_database_url)
    async with first.write() as connection:
        await connection.execute(insert(schema.models).values(name="m", created_at=1.0, created_by="t"))
    await first.close()
    second = await open_database(empty_database_url)
    async with second.read() as connection:
        assert (await connection.execute(select(schema.models.c.name))).scalars().all() == ["m"]
    await second.close()


async def test_the_names_of_migrations_are_their_numbers() -> None:
    files = sorted((MIGRATIONS / "versions").glob("*.py"))
    for number, file in enumerate(files, 1):
        assert file.name.startswith(f"{number:04}_")
        assert f'\nrevision = "{number:04}"\n' in file.read_text()


async def test_several_processes_may_open_an_empty_database_at_once(empty_database_url: str) -> None:
    opened = await asyncio.gather(*(open_database(empty_database_url) for _ in range(4)))
    for one in opened:
        await one.close()


async def test_a_failed_write_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.write() as connection:
            await connection.execute(insert(schema.models).values(name="m", created_at=1.0, created_by="t"))
            raise RuntimeError
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(schema.models))).scalar_one() == 0


async def test_sequences_have_no_gap_and_no_repeat_under_concurrency(database: Database) -> None:
    seen: list[int] = []

    async def bump() -> None:
        async with database.write() as connection:
            seen.append(await next_value(connection, "test"))

    await asyncio.gather(*(bump() for _ in range(50)))
    assert sorted(seen) == list(range(1, 51))


async def test_a_read_sees_one_moment(database: Database) -> None:
    async with database.write() as connection:
        await next_value(connection, "test")
    statement = select(schema.sequences.c.value).where(schema.sequences.c.name == "test")
    async with database.read() as reading:
        before = (await reading.execute(statement)).scalar_one()
        async with database.write() as writing:
            await next_value(writing, "test")
        assert (await reading.execute(statement)).scalar_one() == before
    async with database.read() as reading:
        assert (await reading.execute(statement)).scalar_one() == before + 1


async def test_a_deadlock_is_no_defect_but_told_as_unavailable(postgres: PostgresServer) -> None:
    """PostgreSQL breaks one of the two off; its client asks again."""
    database = await open_database(await postgres.fresh_database())
    for name in ("one", "other"):
        async with database.write() as connection:
            await next_value(connection, name)
    met = asyncio.Barrier(2)

    async def bump(first: str, second: str) -> None:
        async with database.write() as connection:
            await next_value(connection, first)
            await met.wait()
            await next_value(connection, second)

    ends = await asyncio.gather(bump("one", "other"), bump("other", "one"), return_exceptions=True)
    (broken,) = [end for end in ends if end is not None]
    assert isinstance(broken, Unavailable)
    assert (broken.code, broken.retry_after) == ("database_unavailable", 1.0)
    assert "deadlock" in broken.message
    await database.close()


async def test_a_row_that_is_there_is_no_state_of_the_database(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.write() as connection:
            for _ in range(2):
                await connection.execute(insert(schema.sequences).values(name="twice", value=0))


async def test_another_kind_of_database_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="mysql"):
        await open_database("mysql://host/name")


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "not.db"
    path.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(Unavailable, match="not a database"):
        await open_database(f"sqlite:///{path}")
