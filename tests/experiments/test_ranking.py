"""Several versions on one scale: the best is named, and seldom a wrong one."""

import math
from typing import Any

import numpy as np
import pytest

from penstock.experiments.counted import Statistics
from penstock.experiments.design import Design, parse_design
from penstock.experiments.judging import judged, moved
from penstock.experiments.ramp import Standing
from penstock.experiments.ranking import best_of, contrasts, ranked
from penstock.experiments.statistics import Moments


def design(*names: str, **changes: Any) -> Design:
    return parse_design(
        {
            "strategy": "interleaved",
            "route": "bot",
            "arms": [{"name": name, "pool": "p"} for name in ("control", *names)],
            "primary": {"metric": "preference", "minimum_effect": 0.05},
            "plan": {"units": 1000},
            **changes,
        }
    )


def voted(**cast: tuple[int, int]) -> Statistics:
    """Votes for and against each treatment."""
    moments = {
        (1, arm, "preference"): Moments(won + lost, won, won + lost, won, won + lost, won)
        for arm, (won, lost) in cast.items()
    }
    return Statistics(moments=moments, shares={1: {arm: 1 / len(cast) for arm in cast}})


def test_strengths_are_log_odds_and_treatments_are_compared_by_way_of_the_control() -> None:
    asked, statistics = design("a", "b"), voted(a=(600, 400), b=(700, 300))
    found = contrasts(asked, statistics, "preference")
    assert found["control"]["a"].value == pytest.approx(math.log(6 / 4), abs=1e-6)
    assert found["control"]["b"].value == pytest.approx(math.log(7 / 3), abs=1e-6)
    assert found["a"]["b"].value == pytest.approx(math.log(7 / 3) - math.log(6 / 4), abs=1e-6)
    through = found["a"]["b"].high - found["a"]["b"].low
    assert through > max(one.high - one.low for name, one in found["control"].items() if name != "control")
    one, two, three = ranked(asked, statistics, "preference")
    assert (one.arm, two.arm, three.arm, three.strength) == ("b", "a", "control", 0.0)
    assert one.stronger_than == ("a", "control") and two.stronger_than == ("control",)


def test_the_best_is_named_though_another_one_beat_the_control_as_well() -> None:
    asked, statistics = design("a", "b"), voted(a=(620, 380), b=(800, 200))
    verdict = judged(asked, statistics, 0.0)
    assert (verdict.state, verdict.arm) == ("better", "b")
    assert verdict.reasons[0].startswith("By all votes together b is the strongest of 3 versions (strength +1.39")
    assert moved(asked, statistics, verdict, Standing(epoch=1), 0.0).kind == "decide"


def test_while_two_may_be_the_best_it_goes_on_and_ends_when_neither_is_better_by_much() -> None:
    asked = design("a", "b")
    close = voted(a=(130, 70), b=(133, 67))
    assert judged(asked, close, 0.0).state == "running"
    many = voted(a=(60_000, 40_000), b=(60_300, 39_700))
    assert (judged(asked, many, 0.0).state, judged(asked, many, 0.0).arm) == ("better", "b")


def test_the_control_may_be_the_best() -> None:
    verdict = judged(design("a", "b"), voted(a=(300, 700), b=(350, 650)), 0.0)
    assert verdict.state == "worse"
    assert (
        verdict.reasons[0]
        == "By all votes together control is the strongest of 3 versions; it certainly beats b and a."
    )


def test_two_versions_are_judged_by_their_votes_alone_and_silence_says_nothing() -> None:
    assert ranked(design("a"), voted(a=(90, 10)), "preference") == ()
    assert ranked(design("a", "b"), voted(a=(90, 10)), "preference") == ()
    assert judged(design("a"), voted(a=(300, 100)), 0.0).state == "better"
    one_sided = ranked(design("a", "b"), voted(a=(30, 0), b=(10, 20)), "preference")
    assert one_sided[0].arm == "a" and one_sided[0].strength is None


def test_among_equal_versions_one_is_seldom_called_the_best_however_often_it_is_looked_at() -> None:
    asked, draw = design("a", "b", "c"), np.random.default_rng(7)
    wrong, runs = 0, 60
    for _ in range(runs):
        won = np.cumsum(draw.random((3, 1500)) < 0.5, axis=1)
        wrong += any(
            best_of(
                asked,
                voted(**{name: (int(row[at]), at + 1 - int(row[at])) for name, row in zip("abc", won, strict=True)}),
                "preference",
            )
            for at in range(49, 1500, 50)
        )
    assert wrong <= 7  # 5 % of 60 are 3; more than 7 would be one chance in 50
