"""The choice of how many threads a training step uses."""

from __future__ import annotations

from examples.support_bot.threads import Threads


def used(threads: Threads, seconds: dict[int, float], steps: int) -> list[int]:
    chosen = []
    for _ in range(steps):
        chosen.append(threads.choose())
        threads.took(seconds[chosen[-1]])
    return chosen


def test_all_threads_where_they_are_quicker_and_one_where_they_wait() -> None:
    threads = Threads(2)
    assert used(threads, {1: 1.0, 2: 0.6}, 60).count(2) > 50
    assert used(threads, {1: 1.0, 2: 5.0}, 60).count(1) > 50
    assert used(threads, {1: 1.0, 2: 0.6}, 100)[-20:].count(2) > 15


def test_one_thread_has_no_choice() -> None:
    assert set(used(Threads(1), {1: 1.0}, 40)) == {1}
