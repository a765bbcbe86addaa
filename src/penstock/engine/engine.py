"""The engine's front: a bounded queue before the pipeline's worker, and the worker kept alive."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from penstock.core.errors import Damaged, PenstockError, RateLimited, Unavailable, UpstreamFailed
from penstock.core.settings import EngineSettings
from penstock.engine.folder import ModelFolder
from penstock.engine.link import Link
from penstock.engine.messages import Add, Cancel, Failed, Output, Outputs, Ready, Start, ToFront
from penstock.engine.sequence import Sequence
from penstock.engine.stats import Stats
from penstock.engine.vigil import LOOKS, Vigil, cpu_ticks

_log = logging.getLogger("penstock.engine")

_PATIENCE = 5  # workers in a row that may die before they are ready
_PAUSE_S = 0.5  # before the second try; doubled each time


class Answer:
    """The sequences that make up one answer, and who waits for them.

    Attributes:
        done: set when all have finished; its exception is why they did not.
        submitted_ns: monotonic time at which the engine took it; 0 before.
    """

    __slots__ = ("_left", "_news", "done", "sequences", "submitted_ns")

    def __init__(self, sequences: list[Sequence], news: Callable[[Sequence], None] | None = None) -> None:
        self.sequences = sequences
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news = news
        self._left = len(sequences)
        self.submitted_ns = 0

    def tell(self, sequence: Sequence) -> None:
        """There is new text of `sequence`, or it has ended."""
        if self.done.done():
            return
        if self._news is not None:
            self._news(sequence)
        if sequence.finish:
            self._left -= 1
            if not self._left:
                self.done.set_result(None)

    def fail(self, error: PenstockError) -> None:
        """It cannot be finished."""
        if not self.done.done():
            self.done.set_exception(error)


class Engine:
    """Takes answers to make, at most so many at a time, and has the worker make them.

    Attributes:
        stats: what was counted.
        ready: requests are taken now.
        penalties: the pipeline computes presence and frequency penalties rightly.
        came_ready: a worker has been ready at least once.
        broken: set with the reason when no worker can be had any more.
    """

    def __init__(self, folder: ModelFolder, stop_ids: tuple[int, ...], settings: EngineSettings) -> None:
        self.stats = Stats()
        self.ready = False
        self.penalties = False
        self.came_ready = asyncio.Event()
        self.broken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._start = Start(
            directory=str(folder.directory.absolute()),
            max_running=settings.max_running,
            kv_blocks=folder.kv_blocks(settings.kv_cache_mb),
            threads=settings.threads,
            prefix_cache=settings.prefix_cache,
            stop_ids=stop_ids,
            interval_s=settings.stream_interval_s,
        )
        self._link: Link | None = None
        self._starting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._failures = 0
        self._reason = ""
        self._stopped = False
        self._last_id = 0
        self._cache_usage = 0.0
        self._waiting: deque[tuple[Sequence, Answer]] = deque()
        self._running: dict[int, tuple[Sequence, Answer]] = {}

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        return self._start.stop_ids

    @property
    def running(self) -> int:
        """Sequences that the pipeline works on."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Sequences that wait for a place."""
        return len(self._waiting)

    @property
    def worker_pid(self) -> int:
        """The worker's process id; 0 while there is none."""
        return self._link.pid if self._link is not None else 0

    @property
    def cache_usage(self) -> float:
        """Share of the KV cache in use, between 0 and 1."""
        return self._cache_usage if self._running or self._settings.prefix_cache else 0.0

    def start(self) -> None:
        """Starts the worker; `came_ready` is set when it is ready for the first time."""
        self._open()
        if self._settings.hang_s:
            self._watching = asyncio.get_running_loop().create_task(self._watch(self._settings.hang_s / LOOKS))

    async def until(self, *events: asyncio.Event) -> None:
        """Waits for the first of `events`.

        Raises:
            Damaged: if the engine breaks for good before.
        """
        waits: list[asyncio.Future[bool]] = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait([*waits, self.broken], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.broken.done():
            self.broken.result()

    async def stop(self) -> None:
        """Ends the worker; what is still running fails."""
        self._stopped = True
        self.ready = False
        for job in (self._starting, self._watching):
            if job is not None:
                job.cancel()
        self._fail_all()
        if self._link is not None:
            await self._link.close()
        if not self.broken.done():
            self.broken.cancel()

    def submit(self, answer: Answer) -> None:
        """Takes the answer's sequences, to run or to wait.

        Raises:
            Unavailable: if there is no worker now.
            RateLimited: if too many wait already.
        """
        if not self.ready:
            raise Unavailable("The model is being loaded; try again in a second.", code="not_ready", retry_after=1.0)
        free = max(0, self._settings.max_running - len(self._running) - len(self._waiting))
        waiting = len(self._waiting) + max(0, len(answer.sequences) - free)
        if waiting > self._settings.max_waiting:
            turns = 1 + len(self._waiting) / self._settings.max_running
            raise RateLimited(
                f"{len(self._waiting)} of at most {self._settings.max_waiting} requests wait already; try again later.",
                code="queue_full",
                retry_after=min(60.0, max(1.0, turns * self.stats.mean_seconds)),
            )
        answer.submitted_ns = time.monotonic_ns()
        self._waiting.extend((sequence, answer) for sequence in answer.sequences)
        self._admit()

    def cancel(self, answer: Answer) -> None:
        """Drops what of the answer has not finished; the pipeline stops working on it within one step."""
        unfinished = [sequence for sequence in answer.sequences if not sequence.finish]
        if not unfinished:
            return
        self.stats.finished["abort"] += len(unfinished)
        running = [sequence.id for sequence in unfinished if self._running.pop(sequence.id, None)]
        if running and self._link is not None:
            self._link.say(Cancel(ids=running))
        if len(running) < len(unfinished):
            self._waiting = deque(pair for pair in self._waiting if pair[1] is not answer)
        self._admit()

    # -- to and from the worker --------------------------------------------------------------------------------------

    def _admit(self) -> None:
        link = self._link
        while link is not None and self.ready and self._waiting and len(self._running) < self._settings.max_running:
            sequence, answer = self._waiting.popleft()
            self._last_id += 1
            sequence.id = self._last_id
            self._running[sequence.id] = (sequence, answer)
            prompt = [*sequence.prompt, *sequence.forced] if sequence.forced else sequence.prompt
            link.say(Add(id=sequence.id, prompt=prompt, sampling=sequence.sampling))

    def _hear(self, messages: list[ToFront]) -> None:
        news: list[tuple[Sequence, Answer]] = []
        over: list[int] = []
        now = time.monotonic_ns()
        for message in messages:
            if isinstance(message, Outputs):
                self._cache_usage = message.cache_usage
                for output in message.outputs:
                    self._take(output, now, news, over)
            elif isinstance(message, Ready):
                self.penalties = message.penalties
                self._failures = 0
                self.ready = True
                self.came_ready.set()
                _log.info("ready: worker %d", self.worker_pid)
            elif isinstance(message, Failed):
                self._reason = message.reason
        if over and self._link is not None:
            self._link.say(Cancel(ids=over))
        for sequence, answer in news:
            sequence.dirty = False
            answer.tell(sequence)
        if self._waiting:
            self._admit()

    def _take(self, output: Output, now: int, news: list[tuple[Sequence, Answer]], over: list[int]) -> None:
        held = self._running.get(output.id)
        if held is None:
            return
        sequence, answer = held
        stats = self.stats
        if output.finish == "failed":
            del self._running[output.id]
            answer.fail(UpstreamFailed("The pipeline gave this request up; its KV cache may be too small."))
            return
        count = len(output.tokens)
        if count:
            if not sequence.first_ns:
                sequence.first_ns = now
                sequence.began_ns = output.began_ns
                stats.prompt_tokens += len(sequence.prompt) + len(sequence.forced)
                stats.first_token.observe((now - sequence.arrived_ns) / 1e9)
            else:
                stats.between_tokens.observe((now - sequence.last_ns) / 1e9 / count, count)
            sequence.last_ns = now
            stats.generation_tokens += count
        sequence.feed(output.tokens, output.logprobs, output.finish)
        if sequence.finish:
            del self._running[output.id]
            stats.finished[sequence.finish] += 1
            stats.whole.observe((now - sequence.arrived_ns) / 1e9)
            if not output.finish:
                over.append(output.id)
        if not sequence.dirty:
            sequence.dirty = True
            news.append(held)

    # -- the worker's life -------------------------------------------------------------------------------------------

    def _open(self, pause_s: float = 0.0) -> None:
        self._starting = asyncio.get_running_loop().create_task(self._open_after(pause_s))

    async def _open_after(self, pause_s: float) -> None:
        if pause_s:
            await asyncio.sleep(pause_s)
        self._reason = ""
        link = Link(self._hear, self._lost)
        self._link = link
        try:
            await link.open()
        except OSError as error:
            self._reason = f"no process can be started: {error}"
            self._lost()
            return
        link.say(self._start)

    def _lost(self) -> None:
        was_ready, self.ready = self.ready, False
        link, self._link = self._link, None
        if self._stopped or self.broken.done():
            return
        self._fail_all()
        self._failures += 1
        self.stats.restarts += 1
        reason = self._reason or "the pipeline's worker died"
        _log.error("worker %d is lost: %s", link.pid if link else 0, reason)
        first = not self.came_ready.is_set()
        if not was_ready and (first or self._failures >= _PATIENCE):
            self.broken.set_exception(Damaged(reason.rstrip(".") + "."))
            return
        self._reap = asyncio.get_running_loop().create_task(self._buried(link))
        self._open(0.0 if was_ready else _PAUSE_S * 2**self._failures)

    async def _watch(self, pause_s: float) -> None:
        """Replace a worker that hangs over its work."""
        vigil = Vigil()
        while True:
            await asyncio.sleep(pause_s)
            link = self._link if self._running else None
            pid = link.pid if link is not None else 0
            if link is not None and vigil.look(pid, link.heard, cpu_ticks(pid)):
                self._reason = (
                    f"the pipeline's worker has neither computed nor answered for {self._settings.hang_s:.0f} s"
                )
                link.kill()
            elif link is None:
                vigil.look(0, 0, 0)

    async def _buried(self, link: Link | None) -> None:
        if link is not None:
            await link.close()

    def _fail_all(self) -> None:
        running, self._running = self._running, {}
        waiting, self._waiting = self._waiting, deque()
        for _, answer in running.values():
            answer.fail(UpstreamFailed("The engine broke off while it was answering.", code="engine_failed"))
        for _, answer in waiting:
            answer.fail(Unavailable("The engine is being restarted; try again.", code="not_ready", retry_after=1.0))
