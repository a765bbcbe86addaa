import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.access.leases import in_words
from penstock.access.limits import (
    COUNTS,
    DAY_S,
    LASTING,
    MONTH_S,
    REQUESTS,
    RESOURCES,
    SEATS,
    SIZES,
    SPENDS,
    TOKENS,
    Window,
    estimate_tokens,
    limit_of,
)
from penstock.access.register import Entry, Lease, Refusal, Register, Return, Want
from penstock.core.snapshot import Limits


def test_estimates() -> None:
    assert estimate_tokens(1000, 100) == 350
    assert estimate_tokens(1, None) == 257
    assert estimate_tokens(8, 10, choices=3) == 32


def test_limits_by_resource() -> None:
    limits = Limits(
        requests_per_minute=1,
        requests_per_day=10,
        requests_per_month=100,
        tokens_per_minute=2,
        tokens_per_day=20,
        tokens_per_month=200,
        concurrency=3,
        usd_per_minute=0.01,
        usd_per_day=0.1,
        usd_per_month=1.0,
    )
    every = (*COUNTS, *SIZES, SEATS, *SPENDS)
    money = [10_000_000, 100_000_000, 1_000_000_000]
    assert [limit_of(limits, r) for r in every] == [1, 10, 100, 2, 20, 200, 3, *money]
    assert [limit_of(Limits(), r) for r in every] == [None] * 10


def test_every_limit_is_one_resource_in_its_window() -> None:
    assert sorted(one.field for one in RESOURCES) == sorted(Limits.__struct_fields__)
    for kind in (COUNTS, SIZES, SPENDS):
        assert [RESOURCES[r].window_s for r in kind] == [60, DAY_S, MONTH_S]
    assert set(LASTING) == {r for r in SIZES + SPENDS if RESOURCES[r].window_s > 60}


def test_the_number_of_a_resource_keeps_its_meaning() -> None:
    """Ledgers' books that were written before hold them."""
    before = [
        "requests_per_minute",
        "tokens_per_minute",
        "usd_per_day",
        "concurrency",
        "usd_per_minute",
        "usd_per_month",
    ]
    assert [one.field for one in RESOURCES[:6]] == before


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.25, "0.25 s"),
        (61.6, "61.6 s"),
        (121.0, "3 min"),
        (7200.0, "2 h 0 min"),
        (86_399.5, "24 h 0 min"),
        (172_800.0, "2 d 0 h"),
        (30 * 86_400 - 1.0, "30 d 0 h"),
    ],
)
def test_a_wait_in_words_is_never_shorter_than_it_is(seconds: float, told: str) -> None:
    assert in_words(seconds) == told


@given(st.integers(1, 20), st.lists(st.tuples(st.floats(0, 30), st.integers(1, 20)), max_size=60))
def test_no_interval_of_a_window_holds_more_than_the_limit(limit: int, steps: list[tuple[float, int]]) -> None:
    """What is taken may be spent at any moment until its lease is over: the window holds for the last moment too."""
    window = Window(RESOURCES[TOKENS], limit)
    now = 0.0
    taken: list[tuple[float, int]] = []
    for pause, need in steps:
        now += pause
        wait = window.wait(need, now)
        if wait == 0.0:
            window.book(window.slot_at(now), need)
            taken.append((now, need))
        elif wait == float("inf"):
            assert need > limit
        else:
            assert window.wait(need, now + wait + 1e-6) == 0.0, "the promise of Retry-After holds"
            window.advance(now + wait + 1e-6)
            now += wait + 1e-6
        lease = RESOURCES[TOKENS].lease_s
        for end, _ in taken:  # any interval of 60 s that ends with a spending at the very end of a lease
            latest = end + lease
            possible = sum(n for begin, n in taken if begin <= latest and begin + lease > latest - 60 and begin <= now)
            early = sum(n for begin, n in taken if end - 60 < begin <= end)
            assert early <= limit
            assert possible <= limit or latest > now + lease


def test_a_window_gives_everything_back() -> None:
    window = Window(RESOURCES[REQUESTS], 10)
    slot = window.slot_at(5.0)
    assert window.book(slot, 7) == 7
    assert window.book(slot, -9) == -7, "never below nothing"
    assert window.book(slot + 3, -1) == 0
    assert (window.used, window.remaining) == (0, 10)


class Books:
    """A Register, and what each of its callers has been promised."""

    def __init__(self) -> None:
        self.register = Register()

    def ask(self, worker: str, resource: int, limit: int, need: int, now: float) -> Lease | Refusal:
        answer = self.register.grant(worker, [Want("s", resource, limit, need)], now)
        return answer if isinstance(answer, Refusal) else answer[0]


def test_leases_together_are_at_most_two_percent() -> None:
    books = Books()
    extras = 0
    for number in range(10):
        lease = books.ask(f"w{number}", REQUESTS, 1000, 1, 5.0)
        assert isinstance(lease, Lease)
        extras += lease.extra
    assert extras == 20
    small = books.ask("w0", TOKENS, 49, 1, 5.0)
    assert isinstance(small, Lease)
    assert small.extra == 0, "2 % of a small limit is less than one"


def test_all_wants_or_none() -> None:
    books = Books()
    answer = books.register.grant("w", [Want("a", TOKENS, 100, 60), Want("b", TOKENS, 10, 60)], 5.0)
    assert isinstance(answer, Refusal)
    assert answer.index == 1
    assert books.register.used("a", TOKENS, 5.0) == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "return", "charge", "seat", "leave", "restart", "dump"]),
            st.sampled_from(["w1", "w2"]),
            st.integers(1, 30),
            st.floats(0, 20),
        ),
        max_size=60,
    )
)
def test_entries_restore_the_same_books(steps: list[tuple[str, str, int, float]]) -> None:
    """What is written down is what is known: replaying it gives the same answers."""
    register = Register()
    written: list[Entry] = []
    slots: list[tuple[int, int]] = []
    now = 0.0
    for what, worker, amount, pause in steps:
        now += pause
        if what == "ask":
            answer = register.grant(worker, [Want("s", TOKENS, 100, amount)], now)
            if not isinstance(answer, Refusal):
                slots.append((answer[0].slot, amount))
        elif what == "return" and slots:
            slot, granted = slots.pop()
            register.take_back(worker, Return("s", TOKENS, slot, min(amount, granted)), now)
        elif what == "charge":
            register.take_back(worker, Return("s", TOKENS, 0, -amount), now)
        elif what == "seat":
            register.grant(worker, [Want("s", SEATS, 5, 1)], now)
        elif what == "leave":
            register.leave(worker)
        written += register.entries
        register.entries.clear()
        if what == "dump":
            written = register.dump(now)
        if what in {"restart", "dump"}:
            again = Register()
            for entry in written:
                again.restore(entry)
            assert again.used("s", TOKENS, now) == register.used("s", TOKENS, now)
            assert again.used("s", SEATS, now) == register.used("s", SEATS, now)
            register = again


@pytest.mark.parametrize("resource", [*COUNTS, *SIZES, *SPENDS])
def test_everything_is_free_again_after_the_window(resource: int) -> None:
    books = Books()
    lease = books.ask("w", resource, 1000, 900, 5.0)
    assert isinstance(lease, Lease)
    assert books.register.used("s", resource, 5.0 + lease.reset_s - 0.01) > 0
    assert books.register.used("s", resource, 5.0 + lease.reset_s) == 0
    assert books.register.dump(5.0 + lease.reset_s) == []
