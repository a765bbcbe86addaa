"""Assignment: GrowthBook's published cases, nesting, uniformity, stickiness, lapse."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.snapshot import Arm, ContextCell, Contexts, ExperimentEntry
from penstock.experiments.assignment import (
    assign,
    compile_experiment,
    respan,
    spans_by_weight,
    unit_of,
)
from penstock.experiments.hashing import bucket, fnv32a

# packages/sdk-js/test/cases.json of growthbook/growthbook, "hash": seed, value, version, result
GROWTHBOOK = [
    ("", "a", 1, 0.22),
    ("", "b", 1, 0.077),
    ("b", "a", 1, 0.946),
    ("ef", "d", 1, 0.652),
    ("asdf", "8952klfjas09ujk", 1, 0.549),
    ("", "123", 1, 0.011),
    ("", '___)((*":&', 1, 0.563),
    ("seed", "a", 2, 0.0505),
    ("seed", "b", 2, 0.2696),
    ("foo", "ab", 2, 0.2575),
    ("foo", "def", 2, 0.2019),
    ("89123klj", "8952klfjas09ujkasdf", 2, 0.124),
    ("90850943850283058242805", "123", 2, 0.7516),
    ("()**(%$##$%#$#", '___)((*":&', 2, 0.0128),
]


def entry(*weights: float, unit: str = "user", seed: str = "s", epoch: int = 1, **more: object) -> ExperimentEntry:
    arms = tuple(Arm(name=f"a{i}", pool="p", weight=w) for i, w in enumerate(weights))
    return ExperimentEntry(name="e", epoch=epoch, seed=seed, unit=unit, arms=arms, incumbent="a0", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("seed", "value", "version", "expected"), GROWTHBOOK)
def test_hash_is_growthbooks(seed: str, value: str, version: int, expected: float) -> None:
    assert bucket(seed, value, version) == expected


def test_bucket_ranges_are_growthbooks() -> None:
    assert spans_by_weight((0.5, 0.5)) == (((0.0, 0.5),), ((0.5, 1.0),))
    low = spans_by_weight((0.4, 0.1, 0.5))
    assert [round(edge, 9) for ((a, b),) in low for edge in (a, b)] == [0.0, 0.4, 0.4, 0.5, 0.5, 1.0]
    thirds = spans_by_weight((0.2, 0.3, 0.5))
    assert [round(edge, 9) for ((a, b),) in thirds for edge in (a, b)] == [0.0, 0.2, 0.2, 0.5, 0.5, 1.0]


def test_fnv_reference_values() -> None:
    assert fnv32a("") == 0x811C9DC5
    assert fnv32a("a") == 0xE40C292C
    assert fnv32a("foobar") == 0xBF9CF968


@given(seed=st.text(max_size=12), value=st.text(max_size=40))
def test_compiled_equals_plain_hash(seed: str, value: str) -> None:
    assigned = compile_experiment(entry(0.5, 0.5, seed=seed)).assign(value, 0.0)
    assert assigned.arm.name == ("a0" if bucket(seed, value) < 0.5 else "a1")


@given(
    value=st.text(max_size=30),
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=6).map(sorted),
    first=st.booleans(),
)
def test_raising_the_treatment_never_moves_a_treated_unit(value: str, shares: list[float], first: bool) -> None:
    treated = False
    for share in shares:
        weights = (share, 1 - share) if first else (1 - share, share)
        now = compile_experiment(entry(*weights)).assign(value, 0.0).arm.name == ("a0" if first else "a1")
        assert now or not treated
        treated = now


weights_of_three = st.tuples(*[st.integers(0, 100)] * 3).filter(lambda w: sum(w) > 0)


@given(steps=st.lists(weights_of_three, min_size=2, max_size=6))
def test_new_ranges_move_only_units_of_arms_that_shrink(steps: list[tuple[int, ...]]) -> None:
    spans = spans_by_weight(tuple(map(float, steps[0])))
    before = tuple(w / sum(steps[0]) for w in steps[0])
    places = [i / 997 for i in range(997)]

    def owner(spans: tuple[tuple[tuple[float, float], ...], ...], place: float) -> int | None:
        return next((i for i, mine in enumerate(spans) for low, high in mine if low <= place < high), None)

    for weights in steps[1:]:
        shares = tuple(w / sum(weights) for w in weights)
        after = respan(spans, tuple(map(float, weights)))
        for share, mine in zip(shares, after, strict=True):
            assert math.isclose(sum(high - low for low, high in mine), share, abs_tol=1e-9)
        for place in places:
            old, new = owner(spans, place), owner(after, place)
            assert new is not None
            if old != new:
                assert old is not None
                assert shares[old] < before[old]
        spans, before = after, shares


def test_two_arms_keep_one_border_through_a_ramp() -> None:
    spans = spans_by_weight((0.9, 0.1))
    for share in (0.25, 0.5, 1.0, 0.0):
        spans = respan(spans, (1 - share, share))
        assert all(len(one) <= 1 for one in spans)
    assert spans == (((0.0, 1.0),), ())


@settings(max_examples=20)
@given(seed=st.text(min_size=1, max_size=12), share=st.floats(0.05, 0.95))
def test_shares_are_kept_and_seeds_are_independent(seed: str, share: float) -> None:
    n = 4000
    one, two = (
        compile_experiment(entry(1 - share, share, seed=seed)),
        compile_experiment(entry(0.5, 0.5, seed=seed + "x")),
    )
    mine = [one.assign(f"user-{i}", 0.0).arm.name == "a1" for i in range(n)]
    other = [two.assign(f"user-{i}", 0.0).arm.name == "a1" for i in range(n)]
    bound = 5 * math.sqrt(share * (1 - share) / n)
    assert abs(sum(mine) / n - share) < bound + 1e-4
    both = sum(a and b for a, b in zip(mine, other, strict=True)) / n
    assert abs(both - share / 2) < 5 * math.sqrt(share / 2 * (1 - share / 2) / n)


def test_the_same_unit_gets_the_same_arm_from_every_worker() -> None:
    workers = [compile_experiment(entry(0.5, 0.5)) for _ in range(3)]
    for i in range(500):
        assert len({worker.assign(f"u{i}", float(i)).arm.name for worker in workers for _ in range(2)}) == 1


def test_the_memory_of_buckets_is_bounded() -> None:
    worker = compile_experiment(entry(0.5, 0.5))
    for i in range(10_000):
        worker.assign(f"u{i}", 0.0)
    assert len(worker._buckets) <= 4096
    requests = compile_experiment(entry(0.5, 0.5, unit="request"))
    requests.assign("r1", 0.0)
    assert not requests._buckets


def test_shares_lapse_to_the_incumbent_and_lapsed_requests_are_no_exposure() -> None:
    canary = compile_experiment(entry(0.0, 1.0, expires_at=100.0, epoch=7))
    assert canary.assign("u", 99.9)[1:] == (1.0, 7)
    assert canary.assign("u", 99.9).arm.name == "a1"
    lapsed = canary.assign("u", 100.0)
    assert (lapsed.arm.name, lapsed.epoch) == ("a0", 0)


def test_explicit_ranges_win_over_weights_and_what_none_covers_is_unexposed() -> None:
    arms = (
        Arm(name="a0", pool="p", weight=0.5, ranges=((0.0, 0.1),)),
        Arm(name="a1", pool="p", weight=0.5, ranges=((0.1, 0.2), (0.9, 1.0))),
    )
    worker = compile_experiment(ExperimentEntry(name="e", epoch=3, seed="s", unit="user", arms=arms, incumbent="a0"))
    seen = [worker.assign(f"u{i}", 0.0) for i in range(5000)]
    exposed = [one for one in seen if one.epoch == 3]
    assert 0.25 < len(exposed) / len(seen) < 0.35
    assert {round(one.propensity, 9) for one in exposed} == {0.1, 0.2}
    assert {one.arm.name for one in seen if one.epoch == 0} == {"a0"}


def test_a_contradiction_is_told() -> None:
    with pytest.raises(ValueError, match="none of its arms"):
        assign(ExperimentEntry(name="e", epoch=1, seed="s", unit="user", arms=(), incumbent="x"), "u", 0.0)
    with pytest.raises(ValueError, match="weights"):
        assign(entry(0.0, 0.0), "u", 0.0)


def test_units() -> None:
    assert unit_of("user", user="u", session="s", key="k", request="r") == "u"
    assert unit_of("user", user="", session="s", key="k", request="r") == "r"
    assert unit_of("session", user="u", session="", key="k", request="r") == "u"
    assert unit_of("key", user="u", session="s", key="k", request="r") == "k"
    assert unit_of("request", user="u", session="s", key="k", request="r") == "r"


def test_contexts_have_shares_of_their_own() -> None:
    both: dict[str, tuple[tuple[float, float], ...]] = {"control": ((0.0, 0.5),), "treatment": ((0.5, 1.0),)}
    mostly: dict[str, tuple[tuple[float, float], ...]] = {"control": ((0.0, 0.1),), "treatment": ((0.1, 1.0),)}
    arms = (Arm(name="control", pool="p", weight=0.5), Arm(name="treatment", pool="p", weight=0.5))

    def entry(contexts: Contexts) -> ExperimentEntry:
        return ExperimentEntry(
            name="e", epoch=4, seed="s:4", unit="request", arms=arms, incumbent="control", contexts=contexts
        )

    by_tenant = compile_experiment(
        entry(
            Contexts(by="tenant", cells=(ContextCell(name="acme", ranges=mostly), ContextCell(name="*", ranges=both)))
        )
    )
    assert by_tenant.context_of("acme", 9) == "acme"
    assert by_tenant.context_of("beta", 9) == "*"
    for context, share in (("acme", 0.9), ("*", 0.5)):
        found = [by_tenant.assign(f"u{number}", 0.0, context) for number in range(2000)]
        treated = [one for one in found if one.arm.name == "treatment"]
        assert len(treated) / 2000 == pytest.approx(share, abs=0.04)
        assert {one.propensity for one in treated} == {share}
        assert {one.epoch for one in found} == {4}

    cells = tuple(ContextCell(name=name, ranges=both) for name in ("0-63", "64-255", "256-"))
    by_length = compile_experiment(entry(Contexts(by="length", edges=(64, 256), cells=cells)))
    assert [by_length.context_of("acme", size) for size in (0, 63, 64, 255, 256, 9999)] == [
        "0-63", "0-63", "64-255", "64-255", "256-", "256-",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="contexts"):
        compile_experiment(entry(Contexts(by="length", edges=(64,), cells=cells)))
