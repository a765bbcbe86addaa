"""A tiny model, and engines that serve it: the real one, worker process and all, in a thread with an event loop of its own."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock.core.settings import EngineSettings
from penstock.engine.serve import serve_engine
from tests.engine.tiny_model import build

DEADLINE_S = 60.0


class Running:
    """A running engine."""

    def __init__(self) -> None:
        self.url = ""
        self.worker = 0  # the process that computes, where a test has looked for it
        self.failure: BaseException | None = None
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._came = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, directory: Path, model: str | None, settings: EngineSettings, *, signed: bool = False) -> None:
        def run() -> None:
            async def main() -> None:
                self._loop = asyncio.get_running_loop()
                await serve_engine(
                    directory=directory,
                    model=model,
                    settings=settings,
                    started=self._started,
                    stop=self._stop,
                    signed=signed,
                )

            try:
                asyncio.run(main())
            except BaseException as error:
                self.failure = error
            finally:
                self._came.set()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert self._came.wait(DEADLINE_S), "the engine did not start"
        if self.failure is not None:
            raise self.failure

    def _started(self, url: str) -> None:
        self.url = url
        self._came.set()

    def begin_stop(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)

    def stop(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            self.begin_stop()
            self._thread.join(DEADLINE_S)
            assert not self._thread.is_alive(), "the engine did not stop"

    def ended(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def metric(self, name: str, **labels: str) -> float:
        for line in httpx.get(self.url + "/metrics").text.splitlines():
            if line.startswith((name + "{", name + " ")) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {name} {labels}")


def until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """What `condition` gives once it is true."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {deadline_s} s: {what}")


@contextmanager
def running_engine(
    directory: Path, model: str | None = "tiny", *, signed: bool = False, **settings: Any
) -> Iterator[Running]:
    engine = Running()
    own = EngineSettings(port=0, **{"kv_cache_mb": 8, "threads": 1, **settings})
    engine.start(directory, model, own, signed=signed)
    try:
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder."""
    return build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def engine(tiny: Path) -> Iterator[Running]:
    """One engine for all tests that leave it as it was."""
    with running_engine(tiny) as running:
        yield running
