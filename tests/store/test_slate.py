"""What a killed worker held comes back: places when its connection ends, money when its successor starts."""

import asyncio
import sys
from pathlib import Path

from penstock.access.limits import SEATS, SPEND, SPEND_MINUTE, SPEND_MONTH, TOKENS, TOKENS_DAY, TOKENS_MONTH
from penstock.access.register import Return
from penstock.core.snapshot import KeyEntry, Limits, TenantEntry
from penstock.store.limiter import Limiter
from penstock.store.slate import _RECORDS, Slate
from tests.store.books import SocketBooks, until

CALLER = KeyEntry(
    id="k",
    hash="",
    tenant="t",
    limits=Limits(
        tokens_per_minute=1000,
        tokens_per_day=5000,
        tokens_per_month=9000,
        concurrency=500,
        usd_per_minute=1,
        usd_per_day=1,
        usd_per_month=2,
    ),
)

CHILD = """
import asyncio, sys, time
from pathlib import Path
from penstock.core.snapshot import TenantEntry
from penstock.store.ledger_socket import SocketLedger
from penstock.store.limiter import Limiter
from penstock.store.slate import Slate
from tests.store.test_slate import CALLER

async def main():
    folder = Path(sys.argv[1])
    client = SocketLedger(folder / "s", "child", clock=time.monotonic)
    limiter = Limiter(client, slate=Slate(folder / "slate", "boot"))
    client.seats = limiter.book.seats
    await client.start()
    while not client.up:
        await asyncio.sleep(0.01)
    holder = limiter.holder(CALLER, TenantEntry(name="t"))
    now, million = 1_000_000.0, 1_000_000
    held = [await limiter.reserve(holder, 50, now, 100 * million) for _ in range(3)]
    fast = limiter.try_reserve(holder, 1, now, million)
    assert fast is not None
    limiter.settle(held[0], 10, now, 40 * million)
    print("holding", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_what_a_killed_process_held_comes_back(tmp_path: Path) -> None:
    books = SocketBooks(tmp_path)
    await books.start()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        assert child.stdout is not None
        async with asyncio.timeout(60):
            assert await child.stdout.readline() == b"holding\n"
        assert await books.used("key:k", SEATS) >= 3
        assert await books.used("key:k", SPEND) >= 241_000_000
        server = books._server
        assert server is not None
        leased = 10_000_000 + 20_000_000  # at most, of a day and of a month: half of 2 %
        await until(lambda: server.used("key:k", SPEND_MONTH) <= 241_000_000 + leased)  # the settled one's rest is back
        child.kill()
        async with asyncio.timeout(60):
            await child.wait()
        async with asyncio.timeout(20):
            while await books.used("key:k", SEATS):
                await asyncio.sleep(0.005)
        slate = Slate(tmp_path / "slate", "boot")
        held = {resource: sum(one.amount for one in slate.left if one.resource == resource) for resource in range(10)}
        asked = {SPEND: 201_000_000, SPEND_MONTH: 201_000_000, TOKENS_DAY: 101, TOKENS_MONTH: 101}
        assert {resource: amount for resource, amount in held.items() if amount} == asked
        next_one = await books.join("next")
        limiter = Limiter(next_one.client, slate=slate)
        limiter.start(asyncio.get_running_loop(), lambda: books.now)
        await until(lambda: server.used("key:k", SPEND_MONTH) <= 40_000_000 + leased)
        assert 40_000_000 <= await books.used("key:k", SPEND) <= 40_000_000 + leased
        assert await books.used("key:k", SPEND_MINUTE) >= 241_000_000, "a minute's is free again soon enough"
        assert await books.used("key:k", TOKENS) >= 111
        for resource, leased in ((TOKENS_DAY, 50), (TOKENS_MONTH, 90)):
            assert 10 <= await books.used("key:k", resource) <= 10 + leased
        limiter.close(books.now)
        await next_one.client.close()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
        await books.close()


def test_only_what_is_held_is_left_and_only_for_the_same_run_of_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "slate"
    one = Slate(path, "a")
    one.add("tenant:ä on model m", SPEND, 7, 30)
    one.add("tenant:ä on model m", SPEND, 7, 20)
    one.take("tenant:ä on model m", SPEND, 7, 30)
    one.add("key:k", SPEND_MONTH, 8, 5)
    one.take("key:k", SPEND_MONTH, 8, 5)
    one.take("key:k", SPEND_MONTH, 8, 5)
    one.add("key:" + "x" * 400, SPEND, 1, 5)
    one.close()
    two = Slate(path, "a")
    assert two.left == [Return("tenant:ä on model m", SPEND, 7, 20)]
    two.close()
    assert Slate(path, "a").left == [], "given back once"
    three = Slate(path, "a")
    three.add("key:k", SPEND, 1, 5)
    three.close()
    assert Slate(path, "b").left == []
    four = Slate(path, "")
    four.add("key:k", SPEND, 1, 5)
    four.close()
    assert Slate(path, "").left == []


def test_a_full_slate_forgets_nothing_that_it_has(tmp_path: Path) -> None:
    one = Slate(tmp_path / "slate", "a")
    for slot in range(_RECORDS + 10):
        one.add("key:k", SPEND, slot, 1)
    for slot in range(_RECORDS + 10):
        one.take("key:k", SPEND, slot, 1)
    one.add("key:k", SPEND, 99999, 3)
    one.close()
    assert Slate(tmp_path / "slate", "a").left == [Return("key:k", SPEND, 99999, 3)]


async def test_nothing_stands_on_the_slate_when_all_is_settled(tmp_path: Path) -> None:
    books = SocketBooks(tmp_path)
    await books.start()
    worker = await books.join("w")
    limiter = Limiter(worker.client, slate=Slate(tmp_path / "slate", "a"))
    holder = limiter.holder(CALLER, TenantEntry(name="t"))
    for used in (0, 3, 10, 12):
        held = limiter.try_reserve(holder, 1, books.now, 10) or await limiter.reserve(holder, 1, books.now, 10)
        books.now += 70
        limiter.settle(held, 1, books.now, used)
    assert Slate(tmp_path / "slate", "a").left == []
    await worker.client.close()
    await books.close()
