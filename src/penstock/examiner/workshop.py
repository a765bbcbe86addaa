"""Makes builds: each conversion in a process of its own, told step by step; what no graph is written for goes through a converter in an environment of its own."""

import asyncio
import shutil
import sys
from collections.abc import Awaitable, Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from penstock import __version__
from penstock.core.errors import Damaged
from penstock.core.jobs import BuildJob
from penstock.examiner.processes import running
from penstock.examiner.toolchain import ready_toolchain

Say = Callable[[str], Awaitable[None]]
_TAIL = 20  # of its last lines, that an error tells


class Unsupported(Exception):
    """There is no graph for the model; other converters may have one."""


async def make_build(job: BuildJob, say: Say) -> str:
    """Write the build into the job's folder; what made it, with its versions.

    `say` is told each step before it begins. A cancelled call ends what it has started.

    Raises:
        PenstockError: why it cannot be made.
    """
    target = Path(job.target)
    await asyncio.to_thread(_empty, target)
    try:
        argv = (sys.executable, "-P", "-m", "penstock.engine.convert", job.source, job.target, job.precision)
        await _run(argv, say)
        return f"penstock {__version__}, openvino {metadata.version('openvino')}"
    except Unsupported as reason:
        await say(f"{reason} It goes through optimum-intel, in an environment of its own.")
    await asyncio.to_thread(_empty, target)
    chain = await ready_toolchain(Path(job.toolchains), say)
    await _run((str(chain.python), "-P", str(chain.script), job.source, job.target, job.precision), say)
    return chain.name


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)


async def _run(argv: tuple[str, ...], say: Say) -> None:
    """Run a converter that says its steps as lines of JSON on stdout.

    Raises:
        Unsupported: if it says that it has no graph for the model.
        Damaged: what it says went wrong, or how it died.
    """
    tail: list[str] = []
    async with running(argv) as process:
        assert process.stdout is not None
        async for raw in process.stdout:
            told = _told(raw)
            if "step" in told:
                await say(str(told["step"]))
            elif "error" in told:
                error = told["error"]
                if error.get("code") == "unsupported_model":
                    raise Unsupported(error["message"])
                raise Damaged(str(error["message"]), code=str(error.get("code") or "conversion_failed"))
            elif raw.strip():
                tail = [*tail[1 - _TAIL :], raw.decode(errors="replace").rstrip()]
        status = await process.wait()
    if status:
        how = f"was killed by signal {-status}; the machine may have too little memory" if status < 0 else "failed"
        raise Damaged(f"The converter {how}: {' | '.join(tail) or 'it said nothing'}", code="conversion_failed")


def _told(raw: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}
