from hypothesis import given
from hypothesis import strategies as st

from penstock.supervisor.restarts import LONGEST_DELAY_S, STEADY_S, next_streak, restart_delay


def test_the_first_restart_waits_for_nothing() -> None:
    assert restart_delay(next_streak(0, lived_s=0.0)) == 0.0
    assert restart_delay(next_streak(7, lived_s=STEADY_S)) == 0.0


@given(st.integers(0, 10_000))
def test_delays_only_grow_and_are_bounded(streak: int) -> None:
    assert 0.0 <= restart_delay(streak) <= restart_delay(streak + 1) <= LONGEST_DELAY_S


def test_five_quick_kills_in_a_row_are_still_answered_within_seconds() -> None:
    streak, delays = 0, []
    for _ in range(5):
        streak = next_streak(streak, lived_s=0.5)
        delays.append(restart_delay(streak))
    assert max(delays) <= 2.0
