"""One installation with the starter models for all tests that leave it as they found it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.starter import Up, running


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running installation; a test may create keys, tenants and experiments of its own names, and promotes nothing."""
    data: Path = tmp_path_factory.mktemp("up") / "penstock-data"
    with running(data, "--workers", "2") as installation:
        yield installation
