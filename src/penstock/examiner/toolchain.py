"""The environment of the converter for architectures that no graph is written for: made once from a pinned requirements file, which is part of the package."""

import asyncio
import contextlib
import fcntl
import hashlib
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec

from penstock.core.errors import Unavailable
from penstock.examiner.processes import running

Say = Callable[[str], Awaitable[None]]
_HERE = Path(__file__).parent
REQUIREMENTS = _HERE / "toolchain-requirements.txt"
SCRIPT = _HERE / "toolchain_convert.py"
_MARK = "made.json"
_TAIL = 5


class Toolchain(msgspec.Struct, frozen=True, kw_only=True):
    """An environment that is ready: its interpreter, what it is to run, and what it is called."""

    python: Path
    script: Path
    name: str


async def ready_toolchain(folder: Path, say: Say, requirements: Path = REQUIREMENTS) -> Toolchain:
    """The environment below `folder` for `requirements` as they are now; made if it is not there, which takes minutes and gigabytes.

    Raises:
        Unavailable: if it cannot be made, or another process is at it.
    """
    text = await asyncio.to_thread(requirements.read_bytes)
    place = folder / hashlib.sha256(text).hexdigest()[:16]
    pins = [line for line in text.decode().splitlines() if line and not line.startswith(("#", "-"))]
    chain = Toolchain(python=place / "bin" / "python", script=SCRIPT, name=", ".join(pins))
    with _locked(place):
        if not (place / _MARK).is_file():
            await _make(place, say, requirements)
    return chain


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with place.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Unavailable(f"Another process makes the environment {place}.", retry_after=10.0) from None
        yield


async def _make(place: Path, say: Say, requirements: Path) -> None:
    begun = time.monotonic()
    shutil.rmtree(place, ignore_errors=True)
    await say(f"an environment from {requirements.name}, in {place}")
    await _step((sys.executable, "-m", "venv", str(place)), "the environment", say)
    pip = (str(place / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input")
    await _step((*pip, "--requirement", str(requirements)), "pip", say)
    seconds = time.monotonic() - begun
    (place / _MARK).write_bytes(msgspec.json.encode({"seconds": round(seconds, 1)}))
    size = await asyncio.to_thread(_size, place)
    await say(f"the environment is ready after {seconds:.0f} s, and has {size / 1e9:.1f} GB")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


async def _step(argv: tuple[str, ...], what: str, say: Say) -> None:
    tail: list[str] = []
    async with running(argv) as process:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = raw.decode(errors="replace").strip()
            tail = [*tail[1 - _TAIL :], line]
            if line.startswith(("Collecting", "Downloading", "Installing", "Processing")):
                await say(f"{what}: {line[:200]}")
        status = await process.wait()
    if status:
        raise Unavailable(f"{what} failed: {' | '.join(tail)}", code="toolchain_failed")
