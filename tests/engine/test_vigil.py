"""Who computes is never taken for one that hangs, however long it says nothing."""

import os

from penstock.engine.vigil import LOOKS, Vigil, cpu_ticks


def looked(*seen: tuple[int, int, int]) -> list[bool]:
    vigil = Vigil()
    return [vigil.look(*one) for one in seen]


def test_a_worker_hangs_that_does_and_says_nothing() -> None:
    assert looked(*[(7, 3, 100)] * (LOOKS + 1)) == [False] * LOOKS + [True]


def test_who_computes_speaks_or_is_another_one_does_not_hang() -> None:
    assert not any(looked(*((7, 3, tick) for tick in range(50))))
    assert not any(looked(*((7, heard, 100) for heard in range(50))))
    assert not any(looked(*((pid, 3, 100) for pid in range(1, 50))))
    assert not any(looked(*[(0, 0, 0)] * 50)), "who has no work may rest"
    assert not any(looked(*([(7, 3, 100)] * LOOKS + [(7, 3, 101)]) * 4))


def test_ticks_are_of_the_whole_process() -> None:
    before = cpu_ticks(os.getpid())
    while cpu_ticks(os.getpid()) <= before + 1:
        sum(range(10_000))
    assert cpu_ticks(2**22 + 1) == 0
