"""What the tests of several rooms use."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer

import penstock
from penstock.store.sql import Database, open_database
from tests.databases import furnished, url_of
from tests.postgres import PostgresServer
from tests.scheduling import OneInstallationAtATime

# How long an example takes says nothing about what it shows. Every run tries the same examples, so that what is refused is refused
# for what was changed; `make properties` tries new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("new", deadline=None)
settings.load_profile("same")


def pytest_sessionstart() -> None:
    """Refuses to test a compiled module whose source has changed since."""
    for compiled in Path(penstock.__file__).parent.rglob("*.so"):
        source = compiled.with_name(compiled.name.partition(".")[0] + ".py")
        if source.stat().st_mtime > compiled.stat().st_mtime:
            pytest.exit(f"{source} has changed since it was compiled: run `make install`, or `make interpreted`.", 2)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneInstallationAtATime | None:
    """Where tests of a file stay together, installations stay in one process."""
    return OneInstallationAtATime(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole run."""
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables, on each kind of server in turn."""
    if request.param == "sqlite":
        return url_of(tmp_path / "test.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return await server.fresh_database()


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a database with all tables and nothing in them, on each kind of server in turn."""
    if request.param == "sqlite":
        yield furnished(tmp_path / "test.db")
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    async with server.furnished_database() as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An open database with all tables, on each kind of server in turn."""
    opened = await open_database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Database]:
    """An open SQLite database with all tables."""
    opened = await open_database(furnished(tmp_path / "test.db"))
    yield opened
    await opened.close()
