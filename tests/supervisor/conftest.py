import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from penstock.supervisor.keeper import Keeper
from penstock.supervisor.logs import Logs
from penstock.supervisor.procfs import Handle
from penstock.supervisor.records import Records
from penstock.supervisor.values import ProcessSpec

PATIENCE_S = 30.0

# A process that says who it is, ends quietly on SIGTERM, and reads nothing of Python's site packages: quick to start.
_STAYS = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(600)"


async def until(condition: Callable[[], object]) -> None:
    """Waits until `condition()` is true."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def staying(name: str, code: str = _STAYS, **more: object) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        kind="control",
        argv=(sys.executable, "-I", "-S", "-c", code, name),
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture
def records(tmp_path: Path) -> Records:
    (tmp_path / "run").mkdir()
    return Records(tmp_path / "run")


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    (tmp_path / "logs").mkdir()
    return Logs(tmp_path / "logs")


@pytest.fixture
async def keeper(records: Records, logs: Logs) -> AsyncIterator[Keeper]:
    """A keeper whose processes are ended after the test."""
    made = Keeper(records, logs, {"PATH": "/usr/bin"})
    yield made
    for status in made.statuses():
        await made.release(status.name, 0.0)


def handle_of(keeper: Keeper, name: str) -> Handle:
    status = keeper.status(name)
    assert status is not None
    handle = Handle.open(status.pid)
    assert handle is not None
    return handle
