"""Copies of answered requests to a candidate, which no user sees: bounded in number, in what waits, and in time; what finds no room is dropped and counted."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from penstock.core.exchange import FROM_CACHE, Pair, Usage
from penstock.experiments.similarity import similarity
from penstock.gateway.beside import Beside, Given, ask, count, exchange_of_second, second_of, text_in, told
from penstock.gateway.call import Call
from penstock.gateway.judge import judged
from penstock.wire.spoken import texts_of, texts_of_events

if TYPE_CHECKING:
    from penstock.gateway.metrics import Meters

_LEAST_S = 0.5  # that a judge has, however long the answer took
_MOST_BYTES = 4 * 1024 * 1024  # of the questions and answers that wait, of one worker


class Copy(NamedTuple):
    """One that waits: the user's request, who else is to answer it, and until when (monotonic seconds)."""

    call: Call
    beside: Beside
    usage: Usage
    cost_nanousd: int
    until: float
    size: int


class Shadows:
    """The copies of one worker. Offering one never waits and never fails."""

    def __init__(self, meters: Meters) -> None:
        self._waiting: dict[str, deque[Copy]] = {}  # by experiment
        self._bytes = 0
        self._running: dict[asyncio.Task[None], str] = {}  # each works for one experiment
        meters.gauge("penstock_shadow_waiting", lambda: iter([((), float(sum(map(len, self._waiting.values()))))]))

    @property
    def busy(self) -> bool:
        """Whether something waits or runs."""
        return bool(self._waiting or self._running)

    def offer(self, call: Call, usage: Usage, cost_nanousd: int) -> None:
        """Has the answered request `call` copied, if there is room."""
        beside = call.shadow
        if beside is None or beside.experiment.shadow is None or call.outcome == "cancelled":
            return
        plan = beside.experiment.shadow
        name = beside.experiment.name
        waiting = self._waiting.get(name, ())
        size = len(call.request.body) + sum(map(len, call.kept or ()))
        if call.cache in FROM_CACHE or call.cache == "coalesced":
            count(call, "shadow", name, "skipped_cached")
        elif not call.dispatched_ns or call.outcome == "refused":
            return  # whom the gateway refuses gets no work out of the candidate either
        elif len(waiting) >= plan.queue or self._bytes + size > _MOST_BYTES:
            count(call, "shadow", name, "dropped_full")
        else:
            copy = Copy(call, beside, usage, cost_nanousd, time.monotonic() + plan.deadline_s, size)
            self._waiting.setdefault(name, deque()).append(copy)
            self._bytes += size
            if sum(running == name for running in self._running.values()) < plan.in_flight:
                task = asyncio.get_running_loop().create_task(self._work(name))
                self._running[task] = name
                task.add_done_callback(self._running.pop)

    async def stop(self) -> None:
        """Drops what waits, and gives up what runs."""
        for name, waiting in self._waiting.items():
            for copy in waiting:
                count(copy.call, "shadow", name, "dropped_stopped")
        self._waiting.clear()
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    async def _work(self, name: str) -> None:
        while waiting := self._waiting.get(name):
            copy = waiting.popleft()
            if not waiting:
                del self._waiting[name]
            self._bytes -= copy.size
            count(copy.call, "shadow", name, await self._copy(copy))

    async def _copy(self, copy: Copy) -> str:
        call, beside = copy.call, copy.beside
        if not _still_on(copy):
            return "dropped_ended"
        left = copy.until - time.monotonic()
        second = second_of(call, beside) if left > 0 else None
        if second is None:
            return "dropped_busy" if left > 0 else "dropped_late"
        try:
            async with asyncio.timeout(left):
                given = await ask(second, call)
        except TimeoutError:
            second.outcome, second.error, second.status = "error", "shadow_deadline", 504
            given = Given(second, b"", "", Usage(), 0)
            pair = _pair(copy)
        else:
            pair = await self._compared(copy, given)
        call.gateway.journal.append(exchange_of_second(given, pair))
        cost = call.gateway.meters.cell("penstock_shadow_cost_usd_total", beside.experiment.name)
        cost.value += given.cost_nanousd * 1e-9
        return "compared" if given.call.outcome == "ok" else "failed"

    async def _compared(self, copy: Copy, given: Given) -> Pair:
        """The user's side of the pair, with how alike both answers are, and which of them the judge prefers."""
        call, pair = copy.call, _pair(copy)
        plan = copy.beside.experiment.shadow
        if call.outcome != "ok" or given.call.outcome != "ok" or call.kept is None:
            return pair
        text = text_in(texts_of_events(call.kept) if call.stream else texts_of(b"".join(call.kept)))
        pair = msgspec.structs.replace(pair, similarity=similarity(text, given.text))
        if plan is not None and plan.judge:
            try:
                async with asyncio.timeout(max(_LEAST_S, copy.until - time.monotonic())):
                    pair = msgspec.structs.replace(pair, judged=await judged(call, plan.judge, given.text, text))
            except TimeoutError:  # the answers stand without a verdict
                pass
        return pair


def _pair(copy: Copy) -> Pair:
    pair = told(copy.call, copy.call.arm, copy.usage, copy.cost_nanousd)
    return msgspec.structs.replace(pair, of=copy.call.id)


def _still_on(copy: Copy) -> bool:
    """Whether the experiment still runs: one that was paused or stopped copies nothing more."""
    route = copy.call.route
    now = copy.call.gateway.index.routes.get(route.route.name) if route is not None else None
    assigner = now.assigner if now is not None else None
    return (
        assigner is not None
        and assigner.entry.shadow is not None
        and assigner.entry.name == copy.beside.experiment.name
    )
