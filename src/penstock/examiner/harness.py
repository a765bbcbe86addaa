"""Runs lm-evaluation-harness as a process of its own, which asks the candidate over HTTP and knows nothing else of Penstock."""

import asyncio
import shutil
import tempfile
from pathlib import Path

from penstock.core.errors import Damaged, Unavailable
from penstock.examiner.processes import running
from penstock.examiner.toolchain import ready_toolchain
from penstock.registry.harness import Answered, Harness, arguments_of, read_samples

REQUIREMENTS = Path(__file__).parent / "harness-requirements.txt"
_TAIL = 12  # lines of what it said that an error tells
_MOST_SAMPLES = 256 << 20


class HarnessRunner:
    """Where the harness is.

    Args:
        program: the `lm_eval` to run; "": that of an environment below `toolchains`, made when it is first needed.
        toolchains: where environments are made.
    """

    def __init__(self, program: str, toolchains: Path) -> None:
        self._program = program
        self._toolchains = toolchains

    async def ask(self, suite: Harness, url: str, seed: int) -> list[Answered]:
        """Have the engine at `url` asked; what came of each question.

        Raises:
            Unavailable: if the harness cannot be had or started, or takes longer than the suite allows.
            Damaged: if it failed; with the last lines that it said.
            BadRequest: if its results are none that count.
        """
        program = await self._found()
        with tempfile.TemporaryDirectory(prefix="penstock-harness-") as name:
            tasks, output = Path(name) / "tasks", Path(name) / "results"
            for folder in (tasks, output):
                folder.mkdir()
            for file, text in suite.files.items():
                (tasks / file).write_text(text)
            argv = (program, *arguments_of(suite, url=url, folder=str(tasks), output=str(output), seed=seed))
            # What it fetches is kept beside its environment; nothing of ours is told to it but a key that opens nothing.
            more = {"HF_HOME": str(self._toolchains / "harness-cache"), "OPENAI_API_KEY": "none", "HOME": name}
            try:
                async with asyncio.timeout(suite.at_most_s):
                    await _run(argv, name, more)
            except TimeoutError:
                raise Unavailable(
                    f"lm-evaluation-harness took longer than {suite.at_most_s:g} s.", code="harness_too_slow"
                ) from None
            return await asyncio.to_thread(_samples, suite, output)

    async def _found(self) -> str:
        if self._program:
            found = shutil.which(self._program)
            if found is None:
                raise Unavailable(
                    f"There is no program {self._program!r}, as PENSTOCK_EXAMINER_LM_EVAL names it.", code="no_harness"
                )
            return found
        chain = await ready_toolchain(self._toolchains, _quiet, REQUIREMENTS)
        return str(chain.python.with_name("lm_eval"))


async def _quiet(_step: str) -> None:
    return


async def _run(argv: tuple[str, ...], folder: str, more: dict[str, str]) -> None:
    tail: list[str] = []
    async with running(argv, environment=more, folder=folder) as process:
        assert process.stdout is not None
        async for raw in process.stdout:
            tail = [*tail[1 - _TAIL :], raw.decode(errors="replace").strip()]
        status = await process.wait()
    if status:
        said = " | ".join(line for line in tail if line)[-1500:]
        raise Damaged(f"lm-evaluation-harness failed (status {status}): {said}", code="harness_failed")


def _samples(suite: Harness, output: Path) -> list[Answered]:
    files: dict[str, str] = {}
    room = _MOST_SAMPLES
    for path in sorted(output.rglob("samples_*.jsonl")):
        room -= path.stat().st_size
        if room < 0 or path.is_symlink():
            raise Damaged("lm-evaluation-harness wrote more than can be read.", code="harness_failed")
        files[path.name] = path.read_text(errors="replace")
    return read_samples(suite, files)
