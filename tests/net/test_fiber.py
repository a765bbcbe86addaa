"""A fiber starts at once, is woken at once, and is a task to everything in asyncio that asks for one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.net.fiber import Fiber, Wakeup
from tests.net.loops import on_both_loops


def outside(action: Callable[[], object]) -> asyncio.Future[None]:
    """Has `action` run in no task's turn, as transports' callbacks are; done when it has."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        try:
            action()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    loop.call_soon(run)
    return done


def fiber(coroutine: Coroutine[Any, Any, object]) -> Fiber:
    return Fiber(coroutine, asyncio.get_running_loop())


def wakeup() -> Wakeup:
    return Wakeup(asyncio.get_running_loop())


async def ended(one: Fiber, timeout_s: float = 15.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not one.done():
            await asyncio.sleep(0)


@on_both_loops
async def test_it_runs_to_its_first_wait_within_the_call() -> None:
    seen: list[str] = []
    wake = wakeup()

    async def work() -> None:
        seen.append("begun")
        current: object = asyncio.current_task()
        assert current is one
        await wake
        seen.append("woken")

    one = fiber(work())

    def drive() -> None:
        one.start()
        assert seen == ["begun"]
        wake.happen()
        assert seen == ["begun", "woken"]
        assert one.done()

    await outside(drive)


async def test_within_another_turn_it_waits_for_the_end_of_that() -> None:
    seen: list[str] = []
    wake = wakeup()

    async def inner() -> None:
        seen.append("inner")
        await wake
        seen.append("inner woken")

    async def outer() -> None:
        two.start()
        seen.append("outer")
        await asyncio.sleep(0)
        wake.happen()
        seen.append("outer again")

    two, one = fiber(inner()), fiber(outer())
    await outside(one.start)
    await ended(one)
    await ended(two)
    assert seen == ["outer", "inner", "outer again", "inner woken"]


async def test_what_has_happened_is_not_waited_for() -> None:
    wake = wakeup()
    wake.happen()
    wake.happen()

    async def work() -> None:
        await wake
        await wake

    one = fiber(work())

    def drive() -> None:
        one.start()
        assert one.done()

    await outside(drive)
    await wake  # a task does not wait either


async def test_a_task_may_wait_for_a_wakeup_too() -> None:
    wake = wakeup()

    async def wait() -> str:
        await wake
        return "woken"

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    wake.happen()
    assert await task == "woken"
    other = wakeup()

    async def wait_again() -> None:
        await other

    task_again = asyncio.create_task(wait_again())
    await asyncio.sleep(0)
    task_again.cancel()
    other.happen()  # in the turn in which who waited was cancelled
    with pytest.raises(asyncio.CancelledError):
        await task_again


async def _cancelled(wait: Callable[[], Awaitable[object]], before: Callable[[Fiber], object]) -> list[str]:
    """What a fiber sees that waits by `wait` and is cancelled by `before`; it cleans up with a wait of its own."""
    seen: list[str] = []
    cleaned = wakeup()

    async def work() -> None:
        try:
            await wait()
            seen.append("went on")
        except asyncio.CancelledError:
            seen.append("cancelled")
            await cleaned
            seen.append("cleaned" if cleaned.happened else "woken for nothing")
            raise

    one = fiber(work())
    await outside(one.start)
    await outside(lambda: before(one))
    for _ in range(6):
        await asyncio.sleep(0)
    await outside(cleaned.happen)
    await ended(one)
    assert not one.cancel(), "it is over"
    return seen


@pytest.mark.parametrize("times", [1, 2])
async def test_cancelled_while_it_waits(times: int) -> None:
    loop = asyncio.get_running_loop()

    def before(one: Fiber) -> None:
        for _ in range(times):
            assert one.cancel()
        assert one.cancelling() == times

    wake = wakeup()

    async def woken() -> None:
        await wake

    expected = ["cancelled", "cleaned"]
    assert await _cancelled(woken, before) == expected
    wake.happen()  # which nobody waits for any more
    if times == 1:
        future = loop.create_future()
        assert await _cancelled(lambda: future, before) == expected
        assert future.cancelled()
        assert await _cancelled(lambda: asyncio.sleep(60), before) == expected
        assert await _cancelled(lambda: asyncio.Event().wait(), before) == expected


async def test_cancelled_in_the_moment_in_which_it_was_woken() -> None:
    """Woken within another task's turn it has yet to run: it is cancelled, and runs once."""
    wake = wakeup()

    async def woken() -> None:
        await wake

    def both(one: Fiber) -> None:
        async def other() -> None:
            wake.happen()
            one.cancel()

        task = fiber(other())
        task.start()
        assert task.done()

    assert await _cancelled(woken, both) == ["cancelled", "cleaned"]


async def test_cancelled_and_woken_afterwards() -> None:
    wake = wakeup()

    async def woken() -> None:
        await wake

    def both(one: Fiber) -> None:
        one.cancel()
        wake.happen()

    assert await _cancelled(woken, both) == ["cancelled", "cleaned"]


async def test_a_future_done_in_the_moment_of_the_cancellation() -> None:
    future = asyncio.get_running_loop().create_future()

    def both(one: Fiber) -> None:
        future.set_result(None)
        one.cancel()

    assert await _cancelled(lambda: future, both) == ["cancelled", "cleaned"]


async def test_cancelled_by_itself_and_once_more_before_that_arrives() -> None:
    wake, cleaned = wakeup(), wakeup()
    seen: list[str] = []

    async def work() -> None:
        one.cancel()
        try:
            await wake
        except asyncio.CancelledError:
            seen.append("cancelled")
        await cleaned
        seen.append("cleaned" if cleaned.happened else "woken for nothing")

    one = fiber(work())

    def drive() -> None:
        one.start()
        one.cancel()

    await outside(drive)
    for _ in range(4):
        await asyncio.sleep(0)
    await outside(cleaned.happen)
    await ended(one)
    assert seen == ["cancelled", "cleaned"]


async def test_cancelled_before_it_began() -> None:
    began = False

    async def work() -> None:
        nonlocal began
        began = True

    one = fiber(work())
    one.start()  # within this test's turn
    one.cancel()
    await ended(one)
    assert not began


async def test_timeouts_strike_and_are_taken_back() -> None:
    seen: list[object] = []
    never = wakeup()

    async def work() -> None:
        try:
            async with asyncio.timeout(0.01):
                await never
        except TimeoutError:
            seen.append("late")
        seen.append(one.cancelling())
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        try:
            async with asyncio.timeout(60):
                async with asyncio.timeout(0):
                    await never
        except TimeoutError:
            seen.append("late again")
        seen.append(one.cancelling())
        assert await asyncio.wait_for(asyncio.sleep(0, "value"), 60) == "value"

    one = fiber(work())
    await outside(one.start)
    await ended(one)
    assert seen == ["late", 0, "late again", 0]


async def test_a_wakeup_in_the_turn_of_the_timeout_is_told_as_one_of_both() -> None:
    loop = asyncio.get_running_loop()
    seen: list[str] = []

    async def work() -> None:
        wake = wakeup()
        try:
            async with asyncio.timeout(0.005) as bound:
                when = bound.when()
                assert when is not None
                loop.call_at(when, wake.happen)
                await wake
            seen.append("woken")
        except TimeoutError:
            seen.append("late")
        await asyncio.sleep(0)
        assert one.cancelling() == 0

    one = fiber(work())
    await outside(one.start)
    await ended(one)
    assert seen in (["woken"], ["late"])


async def test_uncancel_is_that_of_a_task() -> None:
    async def work() -> int:
        assert one.uncancel() == 0
        one.cancel()
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        assert (one.cancelling(), one.uncancel(), one.uncancel(), one.uncancel()) == (2, 1, 0, 0)
        await asyncio.sleep(0)
        seen.append("went on")
        return 1

    seen: list[str] = []
    one = fiber(work())
    await outside(one.start)
    await ended(one)
    assert seen == ["went on"]
    assert one.get_loop() is asyncio.get_running_loop()


async def test_locks_groups_and_tasks_work_in_it() -> None:
    lock = asyncio.Lock()
    seen: list[object] = []

    async def child(name: int) -> int:
        await asyncio.sleep(0)
        return name

    async def work(name: int) -> None:
        async with lock:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(child(n)) for n in range(3)]
            seen.append((name, [task.result() for task in tasks], await asyncio.gather(child(7), child(8))))
        with pytest.raises(ZeroDivisionError):
            await asyncio.create_task(fails())

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    made = [fiber(work(n)) for n in range(3)]
    for one in made:
        await outside(one.start)
    for one in made:
        await ended(one)
    assert seen == [(n, [0, 1, 2], [7, 8]) for n in range(3)]


async def test_what_it_raises_is_the_loops_and_not_the_wakers() -> None:
    loop = asyncio.get_running_loop()
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    wake = wakeup()

    async def at_once() -> None:
        raise ZeroDivisionError

    async def later() -> None:
        await wake
        raise LookupError

    one, two = fiber(at_once()), fiber(later())

    def drive() -> None:
        one.start()
        two.start()
        wake.happen()

    await outside(drive)
    assert one.done()
    assert two.done()
    assert [type(context["exception"]) for context in told] == [ZeroDivisionError, LookupError]
    assert asyncio.current_task() is not None, "who ran before runs on"


async def test_it_lives_as_long_as_what_it_waits_for() -> None:
    wake = wakeup()
    seen: list[str] = []

    async def work() -> None:
        await wake
        await asyncio.sleep(0.001)
        seen.append("done")

    await outside(lambda: fiber(work()).start())
    gc.collect()
    await outside(wake.happen)
    gc.collect()
    async with asyncio.timeout(15):
        while not seen:
            await asyncio.sleep(0.001)


STEPS = st.lists(st.sampled_from(["wakeup", "sleep", "future", "lock"]), min_size=1, max_size=5)
EVENTS = st.lists(st.tuples(st.sampled_from(["happen", "cancel", "turn"]), st.booleans()), min_size=1, max_size=14)


@settings(max_examples=150, deadline=None)
@given(STEPS, EVENTS)
async def test_no_wait_ends_before_its_time(steps: list[str], events: list[tuple[str, bool]]) -> None:
    """Whatever comes when: each wait ends because what it waited for has happened, or by one of the cancellations asked for."""
    loop = asyncio.get_running_loop()
    now: list[Callable[[], bool]] = []
    cancelled = 0

    async def work() -> None:
        nonlocal cancelled
        for step in steps:
            wake, future, lock = wakeup(), loop.create_future(), asyncio.Lock()
            try:
                if step == "wakeup":
                    now.append(lambda wake=wake: (wake.happen(), True)[1])  # type: ignore[misc]
                    await wake
                    assert wake.happened
                elif step == "future":
                    now.append(lambda future=future: future.done() or (future.set_result(None), True)[1])  # type: ignore[misc]
                    await future
                    assert future.done()
                elif step == "lock":
                    await lock.acquire()
                    now.append(lambda lock=lock: (lock.locked() and lock.release(), True)[1])  # type: ignore[misc]
                    await lock.acquire()
                else:
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                cancelled += 1

    one = fiber(work())
    failed: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failed.append(context))
    await outside(one.start)
    asked = 0
    for event, inside in events:
        if event == "turn":
            await asyncio.sleep(0)
            continue

        def act(event: str = event) -> None:
            nonlocal asked
            if event == "happen":
                if now:
                    now[-1]()
            else:
                asked += one.cancel()

        if inside:
            act()
        else:
            await outside(act)
    async with asyncio.timeout(15):
        while not one.done():
            if now:
                now[-1]()
            await asyncio.sleep(0)
    assert not failed
    assert cancelled <= asked
