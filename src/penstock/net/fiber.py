"""A task that runs at once, and goes on in the moment in which what it waits for happens.

An `asyncio.Task` begins in the next turn of the loop, and goes on one turn after its future is done: two callbacks and two futures for a request that
waits once. A fiber runs to its first wait within the call that starts it, and a `Wakeup` goes straight on with it. It is a task of its own kind as
asyncio's documentation provides for ("Extending", Task lifetime support), so that `asyncio.timeout`, futures and locks work in it as in any other.
Python 3.12's eager tasks do the first half of this.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task, current_task
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any

_enter: Any = _enter_task  # typed for asyncio's own tasks alone
_leave: Any = _leave_task


class Fiber:
    """Drives one coroutine. What it returns is dropped, and what it raises is the loop's to tell: it should see to its own failures."""

    __slots__ = ("_cancels", "_coroutine", "_loop", "_to_cancel", "_waits_for", "ended")

    def __init__(self, coroutine: Coroutine[Any, Any, object], loop: asyncio.AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._waits_for: Wakeup | asyncio.Future[Any] | None = None
        self._to_cancel = False
        self._cancels = 0
        self.ended = False

    def start(self) -> None:
        """Runs to the first wait; within another task's turn, as soon as that is over."""
        self.go_on()

    def go_on(self) -> None:
        """What was waited for has happened."""
        loop = self._loop
        if current_task(loop) is not None:
            self._waits_for = None  # a step is on its way: one that is cancelled meanwhile needs no other
            loop.call_soon(self._step, None)
        else:
            self._step(None)

    def cancel(self, msg: object = None) -> bool:
        """Raises `CancelledError` where the coroutine waits; as of `asyncio.Task`."""
        if self.ended:
            return False
        self._cancels += 1
        waits_for = self._waits_for
        if isinstance(waits_for, Wakeup):
            waits_for.fiber = None
            self._waits_for = None
            self._to_cancel = True
            self._loop.call_soon(self._step, None)
        elif waits_for is None or not waits_for.cancel(msg=msg):
            self._to_cancel = True
        return True

    def cancelling(self) -> int:
        """How often it was asked to be cancelled; as of `asyncio.Task`."""
        return self._cancels

    def uncancel(self) -> int:
        """Takes back one `cancel`; as of `asyncio.Task`."""
        if self._cancels > 0:
            self._cancels -= 1
        return self._cancels

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it runs on; as of `asyncio.Task`."""
        return self._loop

    def done(self) -> bool:
        """Whether the coroutine has come to its end; as of `asyncio.Task`."""
        return self.ended

    def _future_done(self, _future: asyncio.Future[Any]) -> None:
        self._step(None)

    def _step(self, error: BaseException | None) -> None:
        if self.ended:
            return
        self._waits_for = None
        if self._to_cancel:
            self._to_cancel = False
            error = asyncio.CancelledError()
        loop = self._loop
        _enter(loop, self)
        try:
            waits_for = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except (StopIteration, asyncio.CancelledError):
            self.ended = True
            return
        except (KeyboardInterrupt, SystemExit):
            self.ended = True
            raise
        except BaseException as failure:  # noqa: BLE001 - it is told; whoever woke the fiber has nothing to do with it
            self.ended = True
            loop.call_exception_handler({"message": "a fiber failed", "exception": failure})
            return
        finally:
            _leave(loop, self)
        self._waits_for = waits_for
        if type(waits_for) is Wakeup:
            if self._to_cancel:  # asked for while it ran
                waits_for.fiber = self._waits_for = None
                loop.call_soon(self._step, None)
            return
        if waits_for is None:  # `asyncio.sleep(0)`
            loop.call_soon(self._step, None)
            return
        waits_for._asyncio_future_blocking = False  # noqa: SLF001 - the protocol between futures and tasks
        waits_for.add_done_callback(self._future_done)
        if self._to_cancel and waits_for.cancel():
            self._to_cancel = False


class Wakeup(Awaitable[None]):
    """Something that one fiber or task waits for, and that happens once. Not for use from another thread."""

    __slots__ = ("_future", "_loop", "fiber", "happened")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        self.fiber: Fiber | None = None
        self.happened = False

    def happen(self) -> None:
        """Whoever waits goes on: a fiber within this call, unless another task's turn is running."""
        if self.happened:
            return
        self.happened = True
        fiber = self.fiber
        if fiber is not None:
            self.fiber = None
            fiber.go_on()
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        """Waits for it."""
        if self.happened:
            return
        current: Any = current_task(self._loop)
        if type(current) is Fiber:
            self.fiber = current
            yield self
        else:
            self._future = self._loop.create_future()
            yield from self._future
