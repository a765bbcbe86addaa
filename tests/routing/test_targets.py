import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import NotFound
from penstock.core.exchange import Usage
from penstock.core.snapshot import Price, Route, Target
from penstock.routing.prices import cost_nanousd
from penstock.routing.targets import choose_target


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(lambda w: sum(w) > 0))
def test_shares_follow_the_weights_exactly(weights: list[int]) -> None:
    route = Route(name="r", to=tuple(Target(pool=str(i), weight=float(w)) for i, w in enumerate(weights)))
    steps = sum(weights) * 8
    chosen = [choose_target(route, (i + 0.5) / steps).pool for i in range(steps)]
    assert [chosen.count(str(i)) for i in range(len(weights))] == [w * 8 for w in weights]


def test_the_last_draw_falls_on_a_target_with_weight() -> None:
    route = Route(
        name="r", to=(Target(pool="a", weight=0.1), Target(pool="b", weight=0.2), Target(pool="c", weight=0.0))
    )
    assert choose_target(route, 1.0 - 2.0**-53).pool == "b"


def test_a_route_without_weights_leads_nowhere() -> None:
    with pytest.raises(NotFound, match="'r'"):
        choose_target(Route(name="r", to=(Target(pool="a", weight=0.0),)), 0.5)
    with pytest.raises(NotFound):
        choose_target(Route(name="r", to=()), 0.5)


def test_cost_is_exact_in_nano_dollars() -> None:
    assert cost_nanousd(Price(prompt=0.15, completion=0.6), Usage(1000, 500)) == 150_000 + 300_000
    assert cost_nanousd(Price(), Usage(1000, 500)) == 0
