"""Up to when all that gateways did is known: it rests on readers' saying so, for every worker that lives."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.delivery.watch import ALIVE_S, Watched, heard_until, silent


def worker(name: str, reported: float, heard: float, host: str = "a") -> Watched:
    return Watched(journal=f"{name}.{host}", host=host, worker=name, reported_at=reported, heard_at=heard)


def test_the_worker_that_is_heard_least_counts() -> None:
    assert heard_until([worker("w0", 100, 99), worker("w1", 100, 97)], 100.0) == 97
    assert heard_until([worker("w0", 100, 99), worker("w1", 100, 0)], 100.0) == 0
    assert silent([worker("w0", 100, 99), worker("w1", 100, 80)], 100.0, 10.0) == ["w1 on a"]


def test_nobody_that_lives_is_nothing_known() -> None:
    assert heard_until([], 100.0) == 0
    assert heard_until([worker("w0", 100 - ALIVE_S, 100)], 100.0) == 0


def test_a_worker_that_is_gone_holds_nobody_up() -> None:
    gone = worker("w0", 10, 12, host="b")
    assert heard_until([gone, worker("w0", 100, 99)], 100.0) == 99
    assert silent([gone], 100.0, 10.0) == []


def test_workers_of_two_hosts_that_are_called_alike_are_two() -> None:
    seen = [worker("w0", 100, 99, host="a"), worker("w0", 100, 0, host="b")]
    assert heard_until(seen, 100.0) == 0
    assert silent(seen, 100.0, 10.0) == ["w0 on b"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.floats(0, 200), st.floats(0, 200)), max_size=9
    )
)
def test_hearing_less_never_lets_a_share_live_longer(rows: list[tuple[str, str, float, float]]) -> None:
    known = {(h, w): worker(w, r, t, host=h) for h, w, r, t in rows}
    before = heard_until(known.values(), 150.0)
    for place, one in known.items():
        less = {**known, place: worker(one.worker, one.reported_at, one.heard_at / 2, host=one.host)}
        if one.heard_at > 0:
            assert heard_until(less.values(), 150.0) <= before
