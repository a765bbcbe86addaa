"""One installation with the starter models for all tests that leave it as they found it."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.starter import Up, running


class Shared:
    """The installation, from the first test that asks for it to the last of this folder: idle, it would still take a tenth of a core."""

    def __init__(self) -> None:
        self._up: Up | None = None
        self._stack = ExitStack()

    def up(self, data: Path) -> Up:
        if self._up is None:
            self._up = self._stack.enter_context(running(data, "--workers", "2"))
        return self._up

    def end(self) -> None:
        self._up = None
        self._stack.close()


SHARED = Shared()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Iterator[None]:
    yield
    if nextitem is None or nextitem.path.parent != Path(__file__).parent:
        SHARED.end()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Up:
    """A running installation; a test may create keys, tenants and experiments of its own names, and promotes nothing."""
    return SHARED.up(tmp_path_factory.mktemp("up") / "penstock-data")
