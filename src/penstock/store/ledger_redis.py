"""The ledger for gateways of several hosts: the same books in Redis, each worker's turn one script.

All that a worker asks and hands in is sent in turns, one at a time, each done whole or not at all; what comes up while one is on its way
goes with the next. A turn whose answer was lost is sent again under its number, and done once. Workers are alive while they are heard of;
the seats of one that is silent for `DEAD_S` are free. Redis must keep what it has said (`appendonly yes`, `appendfsync
always`), or a restart forgets what was used: with `everysec`, up to two seconds of it where the disk is busy.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from penstock.access.limits import RESOURCES, SEATS
from penstock.access.register import LEASED_SHARE, OLDEST, Lease, Refusal, Return, Want
from penstock.core.errors import BadRequest
from penstock.store.ledger_asking import ANSWER_S, AskingLedger

BEAT_S = 1.0
DEAD_S = 10.0  # a worker that was not heard of for so long is dead
SILENCE_S = 3.0  # nobody at all was heard of for so long: Redis was away
GRACE_S = 5.0  # after that, how long those who held seats may take to join again
PREFIX = "{penstock}:limits:"  # one hash slot

_JOIN_FIRST = 1


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    refused: int
    content: msgspec.Raw


_log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, list[_Answer], int]).decode
_decode_leases = msgspec.msgpack.Decoder(list[Lease]).decode
_decode_refusal = msgspec.msgpack.Decoder(Refusal).decode


def _script() -> str:
    resources = ", ".join(
        f"[{n}] = {{window_s = {r.window_s}, slot_s = {r.slot_s}, lease_s = {r.lease_s}}}"
        for n, r in enumerate(RESOURCES)
    )
    constants = {
        "RESOURCES": "{" + resources + "}",
        "SEATS": SEATS,
        "OLDEST": OLDEST,
        "LEASED_SHARE": LEASED_SHARE,
        "DEAD_S": DEAD_S,
        "SILENCE_S": SILENCE_S,
        "GRACE_S": GRACE_S,
    }
    head = "".join(f"local {name} = {value}\n" for name, value in constants.items())
    return head + Path(__file__).with_name("ledger_redis.lua").read_text()


class _Turn:
    """What is sent at once."""

    __slots__ = ("asks", "joins", "number", "returns")

    def __init__(self, number: int, *, joins: bool, returns: list[Return], asks: list[tuple[int, list[Want]]]) -> None:
        self.number = number
        self.joins = joins
        self.returns = returns
        self.asks = asks


class RedisLedger(AskingLedger):
    """The client of one worker. It joins again by itself when Redis was away."""

    def __init__(
        self,
        url: str,
        session: str,
        *,
        clock: Callable[[], float],
        unix: Callable[[], float] | None = None,
        prefix: str = PREFIX,
    ) -> None:
        """A client of the Redis at `url` (`redis://`, `rediss://` or `unix://`).

        Args:
            url: where it is.
            session: unique for this process's life, over all hosts, such as `HOST/gateway-0/PID/TIME`.
            clock: monotonic seconds, for time limits.
            unix: Unix seconds in place of Redis' own, for all clients alike.
            prefix: of all keys.

        Raises:
            BadRequest: if the URL is none.
        """
        super().__init__(clock)
        self._session = session
        self._unix = unix
        self._prefix = prefix
        self._script = _script()
        self._sha = ""
        self._number = 0
        self._up = False
        self._closing = False
        self._unsure: list[Return] = []  # of a turn that may have been done
        self._unsure_number = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        try:
            self._redis: Redis = Redis.from_url(
                url,
                single_connection_client=True,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=ANSWER_S,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise BadRequest(f"gateway.redis_url: {error}", param="gateway.redis_url") from None

    @property
    def up(self) -> bool:
        """Whether Redis answers."""
        return self._up

    async def start(self) -> None:
        """Join, and stay joined. A Redis that is not there yet is no error: see `up`."""
        with contextlib.suppress(RedisError, OSError):
            await self._join()
        self._task = asyncio.create_task(self._keep(), name="ledger")

    async def close(self) -> None:
        """Send what is to be returned, and leave."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        self._fail_all()
        await self._redis.aclose()

    def _schedule(self) -> None:
        if self._up:
            self._wake.set()

    async def _keep(self) -> None:
        """Send turns as they come up, and one in `BEAT_S` at least; join again after failures."""
        pause = 0.02
        task = asyncio.current_task()
        while task is None or not task.cancelling():  # the client may tell a cancellation as an error of the connection
            closing = self._closing
            try:
                if self._up:
                    await self._turn(joins=False)
                else:
                    await self._join()
                pause = 0.02
            except (RedisError, OSError) as error:
                if self._up:
                    _log.warning("the ledger of limits at Redis does not answer: %s", error)
                self._up = False
                self._fail_all()
            if closing:
                return
            if not self._up:
                await asyncio.sleep(pause)
                pause = min(1.0, 2 * pause)
            elif not self._asks and not self._returns:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await self._wake.wait()

    async def _join(self) -> None:
        """Say what is held, and hand in what may not have arrived: under its own number, so that it is booked once."""
        if self._unsure_number:
            turn = _Turn(self._unsure_number, joins=True, returns=self._unsure, asks=[])
            await self._send(turn)
            self._unsure, self._unsure_number = [], 0
        await self._turn(joins=True)
        self._up = True

    async def _turn(self, *, joins: bool) -> None:
        if joins:
            self._forget_seats()
        self._number += 1
        asks, self._asks = self._asks, []
        turn = _Turn(self._number, joins=joins, returns=self._take_returns(), asks=asks)
        try:
            state, answers = await self._send(turn)
        except (RedisError, OSError):
            self._unsure = [one for one in turn.returns if one.resource != SEATS]
            self._unsure_number = turn.number
            raise
        if state == _JOIN_FIRST:  # this worker was taken for dead; nothing of the turn was done
            self._up = False
            self._fail_all()
            self.give_back(turn.returns, 0.0)
            return
        for (identity, _), answer in zip(asks, answers, strict=True):
            self._answer(identity, _read(answer))

    async def _send(self, turn: _Turn) -> tuple[int, list[_Answer]]:
        message = _encode(
            (
                self._session,
                turn.number,
                self._unix() if self._unix is not None else 0,
                self.seats() if turn.joins else None,
                turn.returns,
                [wants for _, wants in turn.asks],
            )
        )
        state, answers, workers = _decode(await self._evaluate(message))
        self.workers = workers or self.workers
        return state, answers

    async def _evaluate(self, message: bytes) -> Any:
        if not self._sha:
            self._sha = await self._redis.script_load(self._script)
        try:
            return await self._redis.evalsha(self._sha, 1, self._prefix, message)
        except NoScriptError:  # another Redis in its place, or one that has forgotten: nothing was done
            self._sha = ""
            self._sha = await self._redis.script_load(self._script)
            return await self._redis.evalsha(self._sha, 1, self._prefix, message)


def _read(answer: _Answer) -> list[Lease] | Refusal:
    if not answer.refused:
        return _decode_leases(answer.content)
    refusal = _decode_refusal(answer.content)
    return msgspec.structs.replace(refusal, wait=float("inf")) if refusal.wait < 0 else refusal
