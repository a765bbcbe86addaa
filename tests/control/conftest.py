"""The control plane for tests, over each kind of database where a test asks for `house`, over SQLite for `small_house`."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.store.sql import Database
from tests.control.house import House, running_house


@pytest.fixture
async def house(database: Database, tmp_path: Path) -> AsyncIterator[House]:
    async with running_house(database, tmp_path, clock=time.time) as made:
        yield made


@pytest.fixture
async def small_house(sqlite: Database, tmp_path: Path) -> AsyncIterator[House]:
    async with running_house(sqlite, tmp_path, clock=time.time) as made:
        yield made
