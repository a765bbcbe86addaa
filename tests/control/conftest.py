"""The control plane for tests, over each kind of database where a test asks for `house`, over SQLite for `small_house`; likewise `both` and `bed`."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.store.sql import Database
from tests.control.bed import Bed
from tests.control.house import House, running_house


@pytest.fixture
async def house(database: Database, tmp_path: Path) -> AsyncIterator[House]:
    async with running_house(database, tmp_path, clock=time.time) as made:
        yield made


@pytest.fixture
async def small_house(sqlite: Database, tmp_path: Path) -> AsyncIterator[House]:
    async with running_house(sqlite, tmp_path, clock=time.time) as made:
        yield made


@pytest.fixture
async def both(database: Database, tmp_path: Path) -> AsyncIterator[Bed]:
    """What is counted, over each kind of database."""
    made = Bed(database, tmp_path)
    await made.prepare()
    yield made
    await made.http.aclose()


@pytest.fixture
async def bed(sqlite: Database, tmp_path: Path) -> AsyncIterator[Bed]:
    """The same over SQLite."""
    made = Bed(sqlite, tmp_path)
    await made.prepare()
    yield made
    await made.http.aclose()
