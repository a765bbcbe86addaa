"""Drift: what detectors promise, what a text is noticed by, and how a group goes through its days."""

import random
from itertools import combinations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact, hypergeom, ks_2samp, kstwobign

from penstock.core.exchange import Exchange, Noticed, Quality, Usage
from penstock.experiments.drift_daily import compared, exact
from penstock.experiments.drift_evidence import FRACTIONS, both_sides, bounds_of, evidence, nothing_yet, step
from penstock.experiments.drift_signals import SIGNALS, Frame, Tally, key_of, observed, referring
from penstock.experiments.drift_text import BUCKETS, LANGUAGES, language_of, words_of
from penstock.experiments.drift_watch import (
    BORROWED,
    FIRST,
    FULL,
    RUN_LENGTH,
    THRESHOLD,
    Group,
    Watching,
    kept_group,
    new_group,
    standing,
)

unit = st.floats(0, 1)
DAY = 86400


@given(st.lists(st.tuples(unit, st.floats(0.01, 1)), min_size=1, max_size=6), st.floats(0, 1))
def test_no_distribution_with_a_mean_within_the_bound_makes_a_factor_above_one(
    outcomes: list[tuple[float, float]], slack: float
) -> None:
    values, weights = np.array(outcomes).T
    weights /= weights.sum()
    mean = float(values @ weights)
    bound = max(1e-6, mean + slack * (1 - mean))
    factors = [step(np.zeros((1, len(FRACTIONS))), np.array([bound]), np.array([value])) for value in values]
    expected = sum(weight * factor for weight, factor in zip(weights, factors, strict=True))
    assert (expected <= 1 + 1e-9).all()


def test_false_alarms_are_as_rare_as_is_stated() -> None:
    """At the bound itself, where a change is only just none: P(alarm within n) <= n / threshold."""
    draw = np.random.default_rng(20220301)
    n, threshold, runs, rose = 200, 1000.0, 500, 0
    bounds = bounds_of(np.array([0.3]), np.array([0.0]))
    for _ in range(runs):
        levels = nothing_yet(2)
        for value in draw.random(n) < 0.3:
            levels = step(levels, bounds, both_sides(np.array([float(value)])))
            if evidence(levels) >= threshold:
                rose += 1
                break
    allowed = n / threshold
    assert 0 < rose / runs <= allowed + 3 * (allowed / runs) ** 0.5


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is my order? I need it for the weekend.", "en"),
        ("Wann kommt meine Bestellung an, und wie kann ich sie ändern?", "de"),
        ("Où est ma commande et quand est-ce que je la reçois ?", "fr"),
        ("¿Dónde está mi pedido y cuándo llega?", "es"),
        ("Где мой заказ номер 4471?", "ru"),
        ("注文はどこですか", "ja"),
        ("我的订单在哪里", "zh"),
        ("내 주문은 어디에 있나요", "ko"),
        ("4471 8812", "und"),
        ("", "und"),
    ],
)
def test_a_language_is_known_by_script_or_function_words(text: str, language: str) -> None:
    assert language_of(text) == language
    assert language in LANGUAGES


@given(st.text(max_size=200))
def test_any_text_is_noticed(text: str) -> None:
    assert language_of(text) in LANGUAGES
    assert 0 <= words_of(text) < 1 << BUCKETS
    assert words_of(text + " 12345") == words_of(text) or len(text) > 1900  # numbers are nobody's topic


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_keys_of_numbers_sort_as_they_do(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert key_of("number", low) <= key_of("number", high)


@given(st.lists(st.integers(0, 50), min_size=3, max_size=60), st.lists(st.integers(0, 50), min_size=3, max_size=60))
def test_tallies_merge_exactly(first: list[int], second: list[int]) -> None:
    whole, parts = Tally(), (Tally(), Tally())
    for part, values in zip(parts, (first, second), strict=True):
        for value in values:
            whole.add("number", float(value))
            part.add("number", float(value))
    assert parts[0].merged(parts[1]) == whole


@pytest.mark.parametrize(("name", "values"), [("perplexity", (0.01, 0.02, 0.5)), ("input_language", (1.0, 2.0, 0.0)), ("input_topic", (5.0, 6.0, 1.0))])  # fmt: skip
def test_a_reference_has_the_means_that_its_frame_says(name: str, values: tuple[float, ...]) -> None:
    signal, draw = SIGNALS[name], random.Random(1)
    seen = [draw.choice(values) for _ in range(400)]
    tally = Tally()
    for value in seen:
        tally.add(signal.kind, value)
    frame = Frame(signal, referring(signal.kind, tally), "itself")
    means = np.mean([frame.values(value) for value in seen], axis=0)
    assert (means <= frame.bounds).all()
    assert (frame.bounds - means < 0.12).all()


def test_psi_and_distance_are_those_of_the_books() -> None:
    draw = np.random.default_rng(3)
    first, second = draw.exponential(100, 900), draw.exponential(120, 500)
    tallies = [Tally(), Tally()]
    for tally, values in zip(tallies, (first, second), strict=True):
        for value in values:
            tally.add("number", float(value))
    found = compared("number", *tallies)
    oracle = ks_2samp(first, second, method="asymp")
    assert found is not None
    assert found.distance == pytest.approx(oracle.statistic, abs=0.01)  # what is counted is known to 3 %
    assert found.p == pytest.approx(oracle.pvalue, rel=0.5)
    yes = [Tally(n=400, total=40.0, counts={1: 40}), Tally(n=300, total=90.0, counts={1: 90})]
    flags = compared("flag", *yes)
    table = np.array([[40, 360], [90, 210]])
    assert flags is not None
    assert flags.p == pytest.approx(2 * fisher_exact(table, alternative="less").pvalue, rel=1e-9)
    p, q = 40.5 / 401, 90.5 / 301
    assert flags.psi == pytest.approx((q - p) * np.log(q / p) + (p - q) * np.log((1 - q) / (1 - p)))
    assert flags.distance == pytest.approx(0.2)
    assert compared("flag", yes[0], Tally(n=99, counts={1: 3})) is None


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_shares_are_compared_by_fishers_test(n: int, m: int, data: st.DataObject) -> None:
    first, second = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    table = [[first, n - first], [second, m - second]]
    tails = [fisher_exact(table, alternative=side).pvalue for side in ("less", "greater")]
    assert exact(first, n, second, m) == pytest.approx(min(1.0, 2 * min(tails)), rel=1e-7)


def test_the_ladys_cups_of_tea() -> None:
    """Fisher 1935, chapter 2: of eight cups she names three of the four right; one side is 17/70."""
    assert exact(3, 4, 1, 4) == pytest.approx(34 / 70)
    assert exact(4, 4, 0, 4) == pytest.approx(2 / 70)


@pytest.mark.parametrize(("n", "m", "both"), [(1000, 100, 5), (1000, 100, 12), (200, 5000, 30), (1000, 1000, 3)])
def test_chance_is_no_rarer_than_is_said_of_rare_classes_too(n: int, m: int, both: int) -> None:
    """Given how many there are of both together, all that chance does is enumerated: P(p <= level) <= level, at every level that there is."""
    there = range(max(0, both - m), min(n, both) + 1)
    chances = [(exact(k, n, both - k, m), float(hypergeom.pmf(k, n + m, both, n))) for k in there]
    for level, _ in chances:
        assert sum(chance for p, chance in chances if p <= level) <= level * (1 + 1e-9)


def test_chance_is_no_rarer_than_is_said_of_numbers() -> None:
    """All ways to deal out 9 and 6 different numbers: the distance is as large as one that p calls rare no more often than that."""
    n, m = 9, 6
    size = (n * m / (n + m)) ** 0.5
    distances = []
    for chosen in combinations(range(n + m), n):
        steps = np.full(n + m, -1 / m)
        steps[list(chosen)] = 1 / n
        distances.append(float(np.abs(np.cumsum(steps)).max()))
    for distance in sorted(set(distances)):
        share = float(np.mean(np.array(distances) >= distance - 1e-12))
        assert share <= float(kstwobign.sf(distance * size)) + 1e-9


def test_a_few_of_a_new_language_are_no_shift() -> None:
    """Five in a hundred where there were none in a thousand: PSI calls it major, and chance does it six times in a million."""
    reference, day = Tally(n=1000, counts={1: 1000}), Tally(n=100, counts={1: 95, 2: 5})
    found = compared("choice", reference, day)
    assert found is not None
    assert found.psi >= 0.2
    assert found.p > 1e-6
    assert not found.shifted


def fed(group: Group, draw: random.Random, count: int, *, bad: float, start: int = 0, day: int = 0) -> Watching:
    """`count` requests whose answers are wrong with the probability `bad`, and as sure of themselves as they are right."""
    watching = Watching(group)
    for number in range(count):
        at = day * DAY + 1.0
        wrong = draw.random() < bad
        watching.feed("success", float(not wrong), at, start + number)
        watching.feed("perplexity", draw.gauss(0.5, 0.1) if wrong else draw.gauss(0.05, 0.01), at, start + number)
        watching.feed("input_length", float(draw.randint(10, 200)), at, start + number)
        watching.feed("input_topic", float(draw.getrandbits(BUCKETS)), at, start + number)
        watching.feed("input_language", float(draw.random() < 0.1), at, start + number)
    watching.kept()
    return watching


def test_unchanged_traffic_is_quiet_and_a_worse_model_is_not() -> None:
    draw = random.Random(11)
    group = fed(new_group(0.0), draw, 3000, bad=0.05).group
    assert group.alarms == []
    assert all(0 <= standing(watch) < 0.7 for watch in group.watches)
    complete = next(watch for watch in group.watches if watch.signal == "success")
    assert complete.growing is None
    assert complete.reference is not None
    assert complete.reference.tally.n == FULL
    after = fed(group, draw, 500, bad=0.35, start=3000).group
    alarms = {alarm.signal: alarm for alarm in after.alarms}
    assert alarms.keys() == {"success", "perplexity"}
    assert alarms["success"].sequence < 3500
    assert "Success is 0." in alarms["success"].words
    assert alarms["success"].was == pytest.approx(0.95, abs=0.03)
    assert THRESHOLD > RUN_LENGTH


def test_what_is_stored_in_between_changes_nothing() -> None:
    once, often = random.Random(4), random.Random(4)
    whole = fed(new_group(0.0), once, 900, bad=0.2).group
    group = new_group(0.0)
    for start in range(0, 900, 7):
        step_ = fed(group, often, min(7, 900 - start), bad=0.2, start=start).group
        group = msgspec.msgpack.decode(msgspec.msgpack.encode(step_), type=Group)
    assert msgspec.msgpack.encode(group) == msgspec.msgpack.encode(whole)


def test_a_new_version_is_held_against_the_one_before_by_its_users_alone() -> None:
    draw = random.Random(7)
    before = fed(new_group(0.0), draw, FIRST, bad=0.05).group
    worse = fed(new_group(1.0, before), draw, 400, bad=0.4).group
    assert [(alarm.signal, alarm.against) for alarm in worse.alarms] == [("success", "before")]
    assert "the version before" in worse.alarms[0].words
    better = fed(new_group(1.0, before), draw, 400, bad=0.0).group
    assert better.alarms == []
    few = fed(new_group(0.0), draw, BORROWED - 1, bad=0.05).group
    assert all(watch.against == "itself" for watch in new_group(1.0, few).watches)


def test_a_version_that_comes_back_is_compared_with_what_it_was() -> None:
    draw = random.Random(8)
    group = fed(fed(new_group(0.0), draw, FULL, bad=0.05).group, draw, 400, bad=0.5).group
    assert group.alarms
    back = kept_group(group, 5.0)
    assert back.alarms == []
    assert all(watch.reference == old.reference for watch, old in zip(back.watches, group.watches, strict=True))
    assert fed(back, draw, 300, bad=0.05).group.alarms == []


def test_a_day_that_ends_is_compared_with_the_reference() -> None:
    draw = random.Random(9)
    group = fed(new_group(0.0), draw, FULL, bad=0.05).group
    fed(group, draw, 300, bad=0.6, day=1)
    watching = fed(group, draw, 1, bad=0.05, day=2)
    days = {day.signal: day for day in watching.days}
    assert {day.day for day in days.values()} == {1}
    assert days["success"].result.shifted
    assert days["success"].result.distance == pytest.approx(0.55, abs=0.1)
    assert not days["input_length"].result.shifted


def test_what_an_exchange_tells() -> None:
    noticed = Noticed(characters=20, language="en", words=6)
    whole = Exchange(id="req_1", at=1.0, noticed=noticed, quality=Quality(scored=10, logprob=-5.0), usage=Usage(9, 12))
    assert dict(observed(whole)) == {
        "input_length": 20.0,
        "input_language": float(LANGUAGES.index("en")),
        "input_topic": 6.0,
        "refusal": 0.0,
        "output_length": 12.0,
        "perplexity": 0.5,
    }
    cached = msgspec.structs.replace(whole, cache="hit")
    assert [name for name, _ in observed(cached)] == ["input_length", "input_language", "input_topic"]
    stopped = msgspec.structs.replace(whole, outcome="refused", error="content_filter", quality=None)
    assert ("refusal", 1.0) in observed(stopped)
    assert observed(msgspec.structs.replace(stopped, error="rate_limit_exceeded")) == []
    assert observed(msgspec.structs.replace(whole, outcome="error", quality=None)) == []  # it will be asked again
    assert observed(msgspec.structs.replace(whole, noticed=None, quality=None)) == []


def _published() -> dict[str, list[int]]:
    """The streams of river's own tests (`river/drift/test_drift_detectors.py`): each changes at 1000."""
    draw = np.random.RandomState(12345)
    uniform = [*draw.randint(2, size=1000), *draw.randint(8, size=1000)]
    draw = np.random.RandomState(12345)
    binary = [draw.binomial(1, 0.2 if at < 1000 else 0.8) for at in range(2000)]
    return {"uniform": [int(x) for x in uniform], "binary": [int(x) for x in binary]}


@pytest.mark.parametrize(
    ("stream", "signal", "rivers"),
    [
        (
            "uniform",
            "rating",
            {"ADWIN": 1055, "KSWIN": 1042, "PageHinkley": 1020},
        ),  # PageHinkley once more, wrongly, at 1991
        ("binary", "success", {"DDM": 1049, "HDDM_A": 1047, "HDDM_W": 1018}),  # EDDM wrongly at 681, 848 and 983
    ],
)
def test_changes_of_published_streams_are_found_about_when_others_find_them(
    stream: str, signal: str, rivers: dict[str, int]
) -> None:
    watching = Watching(new_group(0.0))
    for at, value in enumerate(_published()[stream]):
        watching.feed(signal, float(value), 0.0, at)
    (alarm,) = watching.group.alarms
    assert 1000 < alarm.sequence <= max(rivers.values()) + 10
