"""Where a request's time went: the phases follow one another, add up to the whole, and the whole is what a client sees."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from statistics import quantiles

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.core.exchange import Exchange, Phases
from penstock.core.snapshot import CachePolicy, Policy, Rule
from tests.gateway.house import House, running
from tests.gateway.raw_client import chat, read_reply

PAUSE_S = 0.06
KINDS = ("whole", "stream", "cached", "retried", "refused", "blocked", "broken", "left")


async def one(house: House, kind: str, number: int) -> tuple[str, float]:
    """A request's id and how long its client waited, from the first byte sent to the last that came."""
    text = {
        "cached": "the same each time",
        "retried": "!status503",
        "blocked": "the badword",
        "broken": "one !two three four",
        "left": "!hang",
    }.get(kind, f"{kind} {number}")
    key = "nobody" if kind == "refused" else "sk-penstock-test"
    stream = kind in {"stream", "broken"}
    more = {"temperature": 0} if kind == "cached" else {}
    request = chat("!truncate a b c" if kind == "broken" else text, stream=stream, key=key, **more)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    begun = time.monotonic()
    writer.write(request)
    try:
        if kind == "left":
            await writer.drain()
            await asyncio.sleep(0)
            return "", 0.0
        got = await read_reply(reader)
        return got.headers[b"x-penstock-request-id"].decode(), time.monotonic() - begun
    finally:
        writer.close()


async def loaded(house: House, count: int, together: int) -> dict[str, float]:
    """What clients waited, by request id."""
    seen: dict[str, float] = {}
    numbers = iter(range(count))
    draws = random.Random(7)

    async def client() -> None:
        for number in numbers:
            # Most are answers; the rest of the kinds are there for their ways through the walk.
            kind = KINDS[number // 2 % len(KINDS)] if number % 2 else draws.choice(("whole", "stream"))
            name, waited = await one(house, kind, number)
            if name:
                seen[name] = waited

    await asyncio.gather(*[client() for _ in range(together)])
    await house.settled()
    return seen


def check(phases: Phases) -> None:
    """They are in order, and add up to the last."""
    reached = [end for end in (getattr(phases, name) for name in phases.__struct_fields__) if end]
    assert reached == sorted(reached), phases
    assert all(length >= 0 for length in phases.lengths())
    assert sum(phases.lengths()) == phases.done > 0


async def tried(data: Path, count: int, together: int) -> list[float]:
    """The shares of clients' times that no phase holds, of answers that took at least the mock's pause."""
    rules = (Rule(name="bad", detect="words", words=("badword",), on=("input",), do="block"),)
    async with running(
        data,
        replicas=2,
        pause_s=PAUSE_S,
        policies=(Policy(name="default", rules=rules),),
        route={"attempts": 2, "cache": CachePolicy(mode="exact", ttl_s=600.0)},
    ) as house:
        seen = await loaded(house, count, together)
        records = {exchange.id: exchange for exchange in house.exchanges()}
        text = (await asyncio.to_thread(httpx.get, f"{house.url}/metrics")).text
    assert len(records) == count
    for exchange in records.values():
        check(exchange.phases)
    told(text, list(records.values()))
    assert {x.outcome for x in records.values()} == {"ok", "refused", "error", "crashed", "cancelled"}
    assert {x.cache for x in records.values()} == {"off", "miss", "hit"}
    answered = [n for n in seen if records[n].cache != "hit" and records[n].outcome == "ok"]
    assert len(answered) > count / 3
    assert {records[n].stream for n in answered} == {True, False}
    return [1 - records[n].phases.done * 1e-9 / seen[n] for n in answered]


def told(text: str, exchanges: list[Exchange]) -> None:
    """The metrics hold the same sums."""
    spent: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "penstock_phase_seconds_total":
                phase = sample.labels["phase"]
                spent[phase] = spent.get(phase, 0.0) + sample.value
    lengths = [exchange.phases.lengths() for exchange in exchanges]
    assert list(spent.values()) == pytest.approx([sum(one) * 1e-9 for one in zip(*lengths, strict=True)])
    assert sum(spent.values()) == pytest.approx(sum(exchange.phases.done for exchange in exchanges) * 1e-9)


async def test_phases_add_up_to_what_the_client_waited(tmp_path: Path) -> None:
    missed = await tried(tmp_path, 128, 6)
    # Where nothing else keeps the machine busy, what no phase holds is there in every request alike.
    assert quantiles(missed, n=10)[0] < 0.01
    assert min(missed) > -0.001


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_of_ten_thousand(tmp_path: Path) -> None:
    missed = await tried(tmp_path, 10_000, 8)
    tenth, *_, median = quantiles(missed, n=10)[:5]
    print(
        f"{len(missed)} answers: phases leave out {100 * median:.2f} % of a client's time, at the median; a tenth {100 * tenth:.2f} %"
    )
    assert median < 0.01
