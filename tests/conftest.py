"""What the tests of several rooms use."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import penstock
from penstock.store.sql import Database, open_database
from tests.postgres import PostgresServer

settings.register_profile("busy machine", deadline=None)  # how long an example takes says nothing about what it shows
settings.load_profile("busy machine")


def pytest_sessionstart() -> None:
    """Refuses to test a compiled module whose source has changed since."""
    for compiled in Path(penstock.__file__).parent.rglob("*.so"):
        source = compiled.with_name(compiled.name.partition(".")[0] + ".py")
        if source.stat().st_mtime > compiled.stat().st_mtime:
            pytest.exit(f"{source} has changed since it was compiled: run `make install`, or `make interpreted`.", 2)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole run."""
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with all tables and nothing in them: migrating takes longer than most tests, so it is done once, and copied."""
    file = tmp_path_factory.mktemp("migrated") / "empty.db"

    async def migrate() -> None:
        await (await open_database(f"sqlite+aiosqlite:///{file}")).close()

    asyncio.run(migrate())
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, on each kind of server in turn."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return await server.fresh_database()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database with all tables, on each kind of server in turn."""
    opened = await open_database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite(tmp_path: Path, migrated: Path) -> AsyncIterator[Database]:
    """An open SQLite database with all tables."""
    shutil.copy(migrated, tmp_path / "test.db")
    opened = await open_database(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    yield opened
    await opened.close()
