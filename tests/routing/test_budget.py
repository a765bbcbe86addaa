"""Further attempts are a share of the requests, whatever happens."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.routing.budget import Budget, hedge_budget, retry_budget


@given(st.lists(st.tuples(st.integers(0, 200), st.booleans()), max_size=100))
def test_second_copies_are_never_more_than_their_share(steps: list[tuple[int, bool]]) -> None:
    budget = hedge_budget(0.05)
    asked = 0
    for more, wants in steps:
        asked += more
        if wants:
            budget.take(asked, 0.0)
        assert budget.taken <= 0.05 * asked + 1e-9


def test_an_outage_is_not_multiplied() -> None:
    budget = retry_budget(0.2)
    sent = 0
    for asked in range(10_000):  # each of them fails and would be tried twice more, 1000 a second
        sent += budget.take(asked, asked / 1000) + budget.take(asked, asked / 1000)
    assert sent == budget.taken
    assert 2000 <= sent <= 2000 + 100 + 100
    assert budget.refused == 20_000 - sent


def test_a_few_are_always_allowed() -> None:
    budget = retry_budget(0.0)
    assert sum(budget.take(0, 0.0) for _ in range(200)) == 100
    assert sum(budget.take(0, 1.0) for _ in range(200)) == 10
    assert sum(budget.take(0, 1000.0) for _ in range(200)) == 100, "what is saved up is bounded"


def test_an_empty_budget_fills() -> None:
    budget = Budget(share=0.5, per_s=0.0, most=10, full=False)
    assert not budget.take(1, 0.0)
    assert budget.take(2, 0.0)
    assert not budget.take(3, 0.0)
