"""The bench of drift counts what it says: its replays go through control's ingest, its delays end with the first alarm."""

import random

from bench.drift import Pair, delay, replayed
from penstock.core.exchange import Exchange, Observation
from tests.control.test_drift import asked


def pairs(count: int, *, bad: float, first: int = 0) -> list[Pair]:
    draw, found = random.Random(first), []
    for number in range(first, first + count):
        exchange, word = asked(number, draw, bad=bad)
        assert isinstance(exchange, Exchange)
        assert isinstance(word, Observation)
        found.append((exchange, word))
    return found


async def test_a_replay_is_quiet_where_nothing_changed_and_not_where_it_did() -> None:
    good, worse = pairs(300, bad=0.05), pairs(250, bad=0.7, first=1000)
    assert await replayed(good) == []
    assert any("Success is 0." in words for words in await replayed([*good, *worse]))


def test_a_delay_is_counted_from_the_swap() -> None:
    good, worse = pairs(300, bad=0.05), pairs(250, bad=0.7, first=1000)
    assert 10 < delay(good, worse, feedback=True) <= 250
    assert delay(good, pairs(100, bad=0.05, first=2000), feedback=True) == 101
