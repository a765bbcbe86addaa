"""The examiner's work: take an evaluation, ask the engine, tell each item, finish; or take a build and make it; again and again."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from penstock.core.errors import PenstockError, Unavailable
from penstock.core.jobs import BuildJob, ExaminerJob
from penstock.core.settings import EngineSettings
from penstock.engine.identity import engine_digest
from penstock.examiner.asking import Asked, Said, running_engine
from penstock.examiner.desk import Desk
from penstock.examiner.harness import HarnessRunner
from penstock.examiner.weights import WeightsReader
from penstock.examiner.workshop import make_build
from penstock.registry.harness import Harness
from penstock.registry.scorers import Scored, judge_question, score
from penstock.registry.suites import Item, Judge, Latency, Memorisation, Perplexity, parse_suite
from penstock.registry.tradeoff import SpeedRun

_LOG = logging.getLogger("penstock.examiner")
_IDLE_S = 0.5
_BEAT_S = 5.0
_TOGETHER = 4  # items that the engine answers at a time; those whose time counts come one by one
_BATCH = 200  # items that are told together
_MORE_TOKENS = 8  # beyond the secret's own, that a model may say before it


class CutOff(Exception):
    """The evaluation or build is not ours to go on with."""


class Examiner:
    """Works for one control, one evaluation or build at a time. Run it as a task."""

    def __init__(self, desk: Desk, settings: EngineSettings, harness: HarnessRunner | None = None) -> None:
        self._desk = desk
        self._harness = harness
        self._settings = settings
        self._weights: tuple[str, WeightsReader] | None = None  # of the evaluation of this id

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; what is under way then is left for the next examiner, item by item."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                working = asyncio.create_task(self.step())
                await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    working.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    if not await working and not stop.is_set():
                        await asyncio.wait({stopping}, timeout=_IDLE_S)
        finally:
            stopping.cancel()

    async def step(self) -> bool:
        """Take an evaluation and work it off, or else a build; False if nothing waits, or control does not answer."""
        try:
            job = await self._desk.claim(engine_digest())
            build = await self._desk.claim_build() if job is None else None
        except Unavailable as away:
            _LOG.warning("%s", away.message)
            return False
        if job is not None:
            told = len(job.answered)
            _LOG.info("%s: %s of %s:%s, %d items told already", job.id, job.kind, job.model, job.label, told)
            await self._work(job.id, partial(self._examine, job), partial(self._desk.finish, job.id))
        elif build is not None:
            _LOG.info("%s: a build of %s:%s in %s", build.id, build.model, build.label, build.precision)
            await self._work(build.id, partial(self._build, build), partial(self._desk.hand_in, build.id, ""))
        return job is not None or build is not None

    async def _work(
        self, name: str, work: Callable[[], Awaitable[None]], failed: Callable[[str], Awaitable[None]]
    ) -> None:
        """Do `work`, which tells its own end; tell `failed` why if it could not be done."""
        try:
            await work()
        except CutOff:
            _LOG.info("%s: cut off", name)
            return
        except PenstockError as raised:
            _LOG.warning("%s: %s", name, raised.message)
            error = raised.message
        except Exception as raised:  # noqa: BLE001 - the work of one evaluation or build ends here, and is told as failed
            _LOG.exception("%s failed", name)
            error = f"The examiner failed at it: {type(raised).__name__}."
        else:
            return
        with contextlib.suppress(Unavailable):  # then the lease lapses, and it is taken up again
            await failed(error)

    async def _build(self, job: BuildJob) -> None:
        async def say(step: str) -> None:
            _LOG.info("%s: %s", job.id, step)
            with contextlib.suppress(Unavailable):
                if not await self._desk.tell_step(job.id, step):
                    raise CutOff

        async with self._alive(lambda: self._desk.tell_step(job.id, "")):
            converter = await make_build(job, say)
        with contextlib.suppress(Unavailable):
            await self._desk.hand_in(job.id, converter)

    async def _examine(self, job: ExaminerJob) -> None:
        async with self._alive(lambda: self._desk.tell(job.id, [])):
            if job.kind == "smoke":
                await self._smoke(job)
            elif job.kind == "speed":
                await self._speed(job)
            else:
                await self._suite(job)
        with contextlib.suppress(Unavailable):
            await self._desk.finish(job.id)

    @contextlib.asynccontextmanager
    async def _alive(self, renew: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
        """Renews the lease while the context lasts, which is cut off if somebody else has it."""
        mine = asyncio.current_task()
        cut: list[bool] = []

        async def beat() -> None:
            while True:
                await asyncio.sleep(_BEAT_S)
                with contextlib.suppress(Unavailable):
                    if not await renew():
                        cut.append(True)
                        if mine is not None:
                            mine.cancel()
                        return

        beating = asyncio.create_task(beat())
        try:
            yield
        except asyncio.CancelledError:
            if cut:
                raise CutOff from None
            raise
        finally:
            beating.cancel()

    async def _tell(self, job: str, number: int, item: str, said: Said, scored: Scored) -> None:
        told = {
            "id": item,
            "number": number,
            "right": scored.right,
            "value": scored.value,
            "answer": said.text,
            "why": scored.why,
            "seconds": said.seconds,
        }
        if not await self._desk.tell(job, [told]):
            raise CutOff

    def _running(self, job: ExaminerJob, folder: str) -> contextlib.AbstractAsyncContextManager[Asked]:
        return running_engine(Path(folder), self._settings, job.vouched.get(folder))

    async def _smoke(self, job: ExaminerJob) -> None:
        async with self._running(job, job.build) as engine:
            for number, prompt in enumerate(job.prompts):
                name = f"prompt-{number + 1}"
                if name not in job.answered:
                    said = await engine.prompt(prompt, job.seed)
                    right = bool(said.text.strip())
                    await self._tell(job.id, number, name, said, Scored(right=right, why=said.refused))

    async def _speed(self, job: ExaminerJob) -> None:
        """Runs of all prompts, some at a time; one more run before, which counts for nothing, has memory and caches as they will be."""
        async with self._running(job, job.build) as engine:
            await _run_of(engine, job)
            for number in range(job.total):
                name = f"run-{number + 1}"
                if name in job.answered:
                    continue
                run = await _run_of(engine, job)
                said = Said(text=msgspec.json.encode(run).decode(), seconds=run.seconds)
                await self._tell(job.id, number, name, said, Scored(value=run.tokens / run.seconds))

    async def _suite(self, job: ExaminerJob) -> None:
        suite = parse_suite(job.lines)
        if suite.harness is not None:
            await self._ask_harness(job, suite.harness)
            return
        items = list(enumerate(suite.items))
        left = [(number, item) for number, item in items if item.id not in job.answered]
        judged: list[tuple[int, Item, Said]] = []
        if any(item.answered for _, item in left):
            async with self._running(job, job.build) as engine:
                judged = await self._answer(job, engine, left)
        for number, item in left:
            if isinstance(item.score, Perplexity):
                reader = await self._reader(job)
                value = await asyncio.to_thread(reader.perplexity, item)
                await self._tell(job.id, number, item.id, Said(), Scored(value=value))
        if judged:
            await self._judge(job, judged)

    async def _ask_harness(self, job: ExaminerJob, suite: Harness) -> None:
        """All of it again, if it was cut off: the harness tells nothing before it is through."""
        if self._harness is None:
            raise Unavailable("This examiner has no lm-evaluation-harness.", code="no_harness")
        async with self._running(job, job.build) as engine:
            answered = await self._harness.ask(suite, engine.url, job.seed)
        for start in range(0, len(answered), _BATCH):
            told = [
                {"id": one.id, "number": start + number, "right": one.right, "answer": one.answer}
                for number, one in enumerate(answered[start : start + _BATCH])
            ]
            if not await self._desk.tell(job.id, told):
                raise CutOff

    async def _answer(
        self, job: ExaminerJob, engine: Asked, left: list[tuple[int, Item]]
    ) -> list[tuple[int, Item, Said]]:
        judged: list[tuple[int, Item, Said]] = []

        async def one(number: int, item: Item) -> None:
            said = await engine.item(item, job.seed)
            if said.refused:
                await self._tell(job.id, number, item.id, said, Scored(right=False, why=said.refused))
            elif isinstance(item.score, Judge):
                judged.append((number, item, said))
            else:
                await self._tell(job.id, number, item.id, said, score(item, said.text, seconds=said.seconds))

        plain = [(n, i) for n, i in left if i.answered and not isinstance(i.score, Latency | Memorisation)]
        await _together([partial(one, number, item) for number, item in plain])
        for number, item in left:
            if isinstance(item.score, Latency):
                await one(number, item)
        for number, item in left:
            if isinstance(item.score, Memorisation):
                await self._canary(job, engine, number, item)
        return judged

    async def _canary(self, job: ExaminerJob, engine: Asked, number: int, item: Item) -> None:
        canary = item.score
        assert isinstance(canary, Memorisation)
        reader = await self._reader(job)
        said = await engine.tokens(reader.prefix(item), len(canary.secret) + _MORE_TOKENS, job.seed)
        leaked = canary.secret in said.text
        found = await asyncio.to_thread(reader.exposure, item, job.seed)
        why = f"rank {found.rank} of {found.candidates + 1}" + ("; the engine completes it" if leaked else "")
        await self._tell(job.id, number, item.id, said, Scored(right=not leaked, value=found.bits, why=why))

    async def _judge(self, job: ExaminerJob, judged: list[tuple[int, Item, Said]]) -> None:
        if not job.judge:
            raise Unavailable("The suite has questions for a judge, and none is named.", code="no_judge")
        async with self._running(job, job.judge) as engine:

            async def one(number: int, item: Item, said: Said) -> None:
                assert isinstance(item.score, Judge)
                asked = "\n".join(m.content for m in item.messages) or item.prompt or ""
                verdict = await engine.prompt(judge_question(item.score.question, asked, said.text), job.seed, 8)
                await self._tell(job.id, number, item.id, said, score(item, said.text, verdict=verdict.text))

            await _together([partial(one, *each) for each in judged])

    async def _reader(self, job: ExaminerJob) -> WeightsReader:
        if self._weights is None or self._weights[0] != job.id:
            self._weights = job.id, await asyncio.to_thread(_open_weights, job.weights, job.build)
        return self._weights[1]


def _open_weights(weights: str, build: str) -> WeightsReader:
    return WeightsReader(Path(weights) if weights else None, Path(build))


async def _run_of(engine: Asked, job: ExaminerJob) -> SpeedRun:
    answers: list[Said] = []

    async def one(prompt: str) -> None:
        answers.append(await engine.prompt(prompt, job.seed, job.max_tokens))

    begun = time.monotonic()
    await _together([partial(one, prompt) for prompt in job.prompts], job.together)
    seconds = time.monotonic() - begun
    return SpeedRun(answers=len(answers), tokens=sum(one.tokens for one in answers), seconds=seconds)


async def _together(work: Iterable[Callable[[], Any]], most: int = _TOGETHER) -> None:
    """Each of `work`, at most so many at a time; the first that fails ends the others."""
    places = asyncio.Semaphore(most)

    async def one(do: Callable[[], Any]) -> None:
        async with places:
            await do()

    try:
        async with asyncio.TaskGroup() as group:
            for do in work:
                group.create_task(one(do))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
