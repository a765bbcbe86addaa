"""The loops of evaluators: take a page, score it, say so; each with its own offset, killed at any time without counting anything twice."""

import asyncio
import hmac
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import httpx
import msgspec
from sqlalchemy import select

from penstock.control.context import Control
from penstock.control.evaluators.ask import Asker, Held
from penstock.control.evaluators.entry import route_of, secret_of
from penstock.control.evaluators.page import Item, Page, Reader, by_id, drawn_from, read_page
from penstock.control.evaluators.score import Scorer
from penstock.control.evaluators.store import (
    Moved,
    add_tally,
    arms_of,
    begin,
    move,
    offset_of,
    seat,
    unseat_before,
    waiting_of,
)
from penstock.control.evaluators.work import (
    Asked,
    Planned,
    Tally,
    Work,
    pairs,
    same_questions,
    singles,
    tallied,
    users_of,
)
from penstock.control.experiments.signal import Signal
from penstock.control.ingest.batch import IngestBatch
from penstock.control.ingest.reader import reserve
from penstock.control.specs.evaluator import EvaluatorSpec, ReferencesSpec
from penstock.core.errors import PenstockError
from penstock.core.exchange import Observation
from penstock.experiments.references import ReferenceSet
from penstock.experiments.scoring import TELLING, Score
from penstock.journal.keystore import Keystore
from penstock.store.schema import resources

_LOG = logging.getLogger("penstock.control.evaluators.loops")

POLL_S = 1.0
_FAILED_S = 2.0
_MOST_HELD_S = 30.0
T = TypeVar("T")
_encode = msgspec.msgpack.Encoder().encode


class Worker:
    """One evaluator at work. `held` says why it waits, if it does."""

    def __init__(
        self,
        control: Control,
        keys: Keystore,
        signal: Signal,
        name: str,
        spec: EvaluatorSpec,
        *,
        references: ReferenceSet | None = None,
        gateway: httpx.AsyncClient | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        self._poll_s = poll_s
        self._control = control
        self._signal = signal
        self.name = name
        self.spec = spec
        self._reader = Reader(control, keys, name)
        self.asker: Asker | None = None
        if spec.place is not None and gateway is not None:
            self.asker = Asker(
                gateway,
                model=route_of(name),
                key=secret_of(control.service_token, name),
                timeout_s=spec.timeout_s,
                attempts=spec.attempts,
            )
        self._scorer = Scorer(spec, references, self.asker)
        self._scores: dict[str, Score] = {}  # of the page that is not yet committed
        self.held = ""
        self.failures = 0
        self._begun = False

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            pause = self._poll_s
            try:
                if await self.step():
                    pause = 0.0
                self.held = ""
            except Held as held:
                self.held, pause = held.why, min(max(0.2, held.retry_after), _MOST_HELD_S)
            except PenstockError as error:
                self.failures += 1
                pause = _FAILED_S
                _LOG.warning("the evaluator %s could not go on: %s", self.name, error.message)
            await asyncio.sleep(pause)

    async def step(self) -> bool:
        """Look at one page; whether there may be more.

        Raises:
            Held: if the model that is needed cannot be asked for now; what has been scored of the page is remembered.
            Unavailable: if the database or the keys cannot be read or written.
        """
        try:
            offset, page, planned = await _undisturbed(self._next())
        except Moved:
            return False
        if page.end == offset:
            return False
        scores = await self._score(planned.works)
        await _undisturbed(self._commit(offset, page, planned, scores))
        self._scores = {}
        self._reader.turn()
        return page.more

    # -- what is to be scored ----------------------------------------------------------------------------------------

    async def _next(self) -> tuple[int, Page, Planned]:
        """The offset, the page behind it, and what is to be scored of it."""
        now = self._control.clock()
        oldest = now - self.spec.look_back_s
        async with self._control.database.read() as connection:
            offset = await offset_of(connection, self.name)
        if offset is None and self._begun:  # it has been removed, and whoever watches over it has not seen that yet
            raise Moved
        if offset is None:
            async with self._control.database.write() as connection:
                offset = await begin(connection, self.name, oldest, now)
        self._begun = True
        async with self._control.database.read() as connection:
            page = await read_page(connection, self.spec, offset)
        drawn = drawn_from(self.name, self.spec, page.items)
        fresh = [item for item in drawn if item.exchange.at >= oldest]
        planned = await self._planned(fresh)
        for item in drawn:
            if item.exchange.at < oldest:
                planned.tally[item.exchange.experiment, item.exchange.arm, "too_late"] += 1
        return offset, page, planned

    async def _planned(self, items: list[Item]) -> Planned:
        if self.spec.compare is None:
            return singles(items, await self._reader.open([one.exchange for one in items if one.exchange.content]))
        paired = [one for one in items if one.exchange.pair is not None]
        found = Planned((), Tally(), {})
        if paired:
            async with self._control.database.read() as connection:
                users = await by_id(connection, users_of(paired))
            wanted = [one.exchange for one in paired] + list(users.values())
            found = pairs(paired, await self._reader.open([one for one in wanted if one.content]))
        alone = [one for one in items if one.exchange.pair is None]
        if alone:
            more = await self._same_questions(alone)
            tally = found.tally
            tally.update(more.tally)
            found = Planned((*found.works, *more.works), tally, more.seats)
        return found

    async def _same_questions(self, items: list[Item]) -> Planned:
        texts = await self._reader.open([one.exchange for one in items if one.exchange.content])
        asked, tally = [], Tally()
        for item in items:
            exchange, text = item.exchange, texts.get(item.exchange.id)
            if text is None or 0 not in text.answers:
                tally[exchange.experiment, exchange.arm, "no_content"] += 1
            else:
                asked.append(Asked(item, text, self._reader.mark(exchange.tenant, text.question)))
        async with self._control.database.read() as connection:
            waiting = await waiting_of(connection, self.name, (one.mark for one in asked))
            met = await by_id(connection, set(waiting.values()))
            arms = await arms_of(connection, {one.seat[0] for one in asked})
        there = await self._reader.open([one for one in met.values() if one.content])
        partners = {name: (met[name], text) for name, text in there.items() if 0 in text.answers}
        partners |= {one.item.exchange.id: (one.item.exchange, one.text) for one in asked}
        found = same_questions(self.name, self.spec.share, asked, waiting, partners, arms)
        tally.update(found.tally)
        return Planned(found.works, tally, found.seats)

    # -- scores ------------------------------------------------------------------------------------------------------

    async def _score(self, works: tuple[Work, ...]) -> Mapping[str, Score]:
        """The scores, by request; those of a page that was begun before are known."""
        places = asyncio.Semaphore(self.spec.in_flight)

        async def one(work: Work) -> None:
            async with places:
                self._scores[work.target.id] = await self._scorer.score(work)

        tasks = [asyncio.create_task(one(work)) for work in works if work.target.id not in self._scores]
        try:
            if tasks:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
                raise error
        return self._scores

    # -- saying so ---------------------------------------------------------------------------------------------------

    async def _commit(self, offset: int, page: Page, planned: Planned, scores: Mapping[str, Score]) -> None:
        """Everything that the page came to, and the new offset, in one transaction; nothing if somebody else was quicker."""
        now = self._control.clock()
        told = [
            self._observation(work, scores[work.target.id], now)
            for work in planned.works
            if scores[work.target.id].result in TELLING
        ]
        changed: set[str] = set()
        try:
            async with self._control.database.write() as connection:
                last = await reserve(connection, len(told)) if told else 0
                await move(connection, self.name, offset, page.end, now)
                if told:
                    batch = IngestBatch([(one, _encode(one)) for one in told], last - len(told) + 1)
                    changed = await batch.run(connection)
                await add_tally(connection, self.name, tallied(planned, scores))
                await seat(connection, self.name, planned.seats, now)
                if self.spec.compare is not None:
                    await unseat_before(connection, self.name, now - self.spec.look_back_s)
        except Moved:
            _LOG.info("the evaluator %s: another process has looked at this page", self.name)
            return
        self._signal.changed(changed)

    def _observation(self, work: Work, score: Score, now: float) -> Observation:
        target = work.target
        words = f"{self.name}/{target.tenant}/{target.id}".encode()
        mark = hmac.digest(self._control.service_token.encode(), b"penstock score " + words, "sha256").hex()[:16]
        return Observation(
            id=f"evaluator/{self.name}/{target.id}/{mark}",
            at=target.at,
            received=now,
            kind="event",
            tenant=target.tenant,
            request=target.id,
            name="judged" if target.pair is not None else self.spec.event,
            value=score.value,
            evaluator=self.name,
        )


async def _undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives. Who is cancelled meanwhile waits for its end first: a transaction that is left in its middle would lock all others out."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


class Evaluators:
    """A worker for each evaluator that is there, for as long as it is what it is. `failures` counts those that broke off."""

    def __init__(
        self, control: Control, keys: Keystore, signal: Signal, gateway: httpx.AsyncClient, *, poll_s: float = POLL_S
    ) -> None:
        self._poll_s = poll_s
        self._control = control
        self._keys = keys
        self._signal = signal
        self._gateway = gateway
        self._running: dict[str, tuple[Any, Worker, asyncio.Task[None]]] = {}
        self.failures = 0

    @property
    def workers(self) -> dict[str, Worker]:
        """Those at work in this process, by name."""
        return {name: worker for name, (_, worker, _) in self._running.items()}

    async def run(self) -> None:
        """Follow what is declared, until cancelled."""
        try:
            while True:
                try:
                    await self._follow()
                except PenstockError as error:
                    _LOG.warning("the evaluators could not be read: %s", error.message)
                await asyncio.sleep(self._poll_s)
        finally:
            for name in list(self._running):
                await self._stop(name)

    async def _follow(self) -> None:
        for name, (_, _, task) in list(self._running.items()):
            if task.done():  # what nobody has thought of: begun anew, as after a kill
                self.failures += 1
                why = None if task.cancelled() else task.exception()
                _LOG.error("the evaluator %s broke off and is begun anew", name, exc_info=why)
                del self._running[name]
        wanted = await self._declared()
        for name in [name for name, (mark, _, _) in self._running.items() if wanted.get(name, (None,))[0] != mark]:
            await self._stop(name)
        for name, (mark, spec, references) in wanted.items():
            if name not in self._running:
                worker = Worker(
                    self._control,
                    self._keys,
                    self._signal,
                    name,
                    spec,
                    references=references,
                    gateway=self._gateway,
                    poll_s=self._poll_s,
                )
                task = asyncio.create_task(worker.run(), name=f"evaluator {name}")
                self._running[name] = (mark, worker, task)

    async def _declared(self) -> dict[str, tuple[Any, EvaluatorSpec, ReferenceSet | None]]:
        """What is declared, by name, each with what changes whenever it does."""
        mine = select(resources.c.name, resources.c.kind, resources.c.generation).where(
            resources.c.kind.in_(("Evaluator", "References"))
        )
        async with self._control.database.read() as connection:
            rows = (await connection.execute(mine)).all()
            marks = {(row.kind, row.name): row.generation for row in rows}
            found: dict[str, tuple[Any, EvaluatorSpec, ReferenceSet | None]] = {}
            for row in (await connection.execute(_of_kind("Evaluator"))).all() if marks else ():
                spec = EvaluatorSpec.model_validate(row.spec)
                named = spec.references
                mark = (marks.get(("Evaluator", row.name)), marks.get(("References", named)) if named else None)
                known = self._running.get(row.name)
                if known is not None and known[0] == mark:
                    found[row.name] = (mark, spec, None)
                    continue
                references = None
                if named is not None:
                    stored = (
                        await connection.execute(_of_kind("References").where(resources.c.name == named))
                    ).one_or_none()
                    items = ReferencesSpec.model_validate(stored.spec).references() if stored is not None else ()
                    references = ReferenceSet(items)
                found[row.name] = (mark, spec, references)
        return found

    async def _stop(self, name: str) -> None:
        _, _, task = self._running.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _of_kind(kind: str) -> Any:
    return select(resources.c.name, resources.c.spec).where(resources.c.kind == kind)
