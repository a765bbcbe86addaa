"""Sessions by their definition."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.experiments.engagement import IDLE_S, Gain, Visit, follow


def followed(times: list[float]) -> tuple[Visit | None, list[Gain]]:
    visit: Visit | None = None
    gains = []
    for at in times:
        visit, gain = follow(visit, at, f"r{at:g}", "v")
        gains.append(gain)
    return visit, gains


def test_a_pause_ends_a_session() -> None:
    visit, gains = followed([100.0, 160.0, 160.0 + IDLE_S, 161.0 + 2 * IDLE_S])
    assert [gain.sessions for gain in gains] == [1, 0, 0, 1]
    assert [gain.engaged for gain in gains] == [0, 1, 0, 0]
    assert [gain.milliseconds for gain in gains] == [0, 60_000, round(IDLE_S * 1000), 0]
    assert {gain.route for gain in gains[:3]} == {"r100"}
    assert visit is not None and visit.requests == 1


def test_what_comes_late_lengthens_the_session_at_its_beginning() -> None:
    visit, gains = followed([5000.0, 4900.0, 5000.0])
    assert [(gain.sessions, gain.engaged, gain.milliseconds) for gain in gains] == [
        (1, 0, 0),
        (0, 1, 100_000),
        (0, 0, 0),
    ]
    assert visit is not None and (visit.began, visit.last, visit.requests) == (4900.0, 5000.0, 3)


def test_what_comes_much_too_late_is_a_session_of_its_own() -> None:
    visit, gains = followed([9000.0, 9000.0 - 2 * IDLE_S])
    assert [(gain.sessions, gain.engaged) for gain in gains] == [(1, 0), (1, 0)]
    assert visit is not None and visit.began == 9000.0


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=40))
def test_sums_are_those_of_the_definition(times: list[int]) -> None:
    ordered = sorted(times)
    _, gains = followed([float(at) for at in ordered])
    sessions: list[list[int]] = []
    for at in ordered:
        if not sessions or at - sessions[-1][-1] > IDLE_S:
            sessions.append([])
        sessions[-1].append(at)
    assert sum(gain.sessions for gain in gains) == len(sessions)
    assert sum(gain.engaged for gain in gains) == sum(len(one) > 1 for one in sessions)
    assert sum(gain.requests for gain in gains) == len(times)
    assert sum(gain.milliseconds for gain in gains) == 1000 * sum(one[-1] - one[0] for one in sessions)
