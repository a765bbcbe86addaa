"""Who takes part: GrowthBook's namespaces, holdouts, targeting; and what is refused of their declaration."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.core.snapshot import Arm, Audience, ExperimentEntry, Slice
from penstock.experiments.arms import check_parameters
from penstock.experiments.assignment import compile_experiment, covered, spans_by_weight
from penstock.experiments.design import parse_design
from penstock.experiments.eligibility import Gate, gate_of, in_namespace, is_held_out
from penstock.experiments.population import NamespaceSpec, overlap

ARMS = (Arm(name="a", pool="p", weight=1.0), Arm(name="b", pool="p", weight=1.0))


def entry(**changes: Any) -> ExperimentEntry:
    return ExperimentEntry(name="e", epoch=1, seed="e", unit="user", arms=ARMS, incumbent="a", **changes)


@pytest.mark.parametrize(
    ("name", "low", "high", "count"),
    # packages/sdk-js/test/util.test.ts of growthbook/growthbook, "calculates namespace inclusion correctly"
    [("namespace1", 0.0, 0.4, 4042), ("namespace1", 0.4, 1.0, 5958), ("namespace2", 0.0, 0.4, 3984)],
)
def test_namespaces_are_growthbooks(name: str, low: float, high: float, count: int) -> None:
    part = Slice(name=name, low=low, high=high)
    assert sum(in_namespace(str(number), part) for number in range(10_000)) == count


@given(st.text(max_size=30))
def test_two_experiments_of_a_namespace_have_no_unit_in_common_and_together_all(unit: str) -> None:
    gates = [Gate(entry(namespace=Slice(name="n", low=low, high=high))) for low, high in ((0.0, 0.3), (0.3, 1.0))]
    assert sorted(gate.why_not("acme", {}, None, unit) for gate in gates) == ["", "namespace"]


def test_a_holdout_has_its_share_of_units_whatever_the_arms_are() -> None:
    small, large = Slice(name="winter", high=0.05), Slice(name="winter", high=0.2)
    held = [unit for unit in map(str, range(20_000)) if is_held_out(unit, small)]
    assert 0.045 < len(held) / 20_000 < 0.055
    assert all(is_held_out(unit, large) for unit in held)  # a larger share holds the smaller one
    gate = gate_of(entry(holdout=small))
    assert gate is not None and gate.why_not("acme", {}, None, held[0]) == "holdout"
    arms = [compile_experiment(entry()).assign(unit, 0.0).arm.name for unit in held]
    assert 0.4 < arms.count("a") / len(arms) < 0.6


def test_targeting_wants_all_of_it() -> None:
    gate = Gate(entry(audience=Audience(tenants=("acme",), headers={"X-Plan": "gold"}, metadata={"tier": "pro"})))
    told = {b"x-plan": b"gold"}
    assert gate.why_not("acme", told, {"tier": "pro", "more": 1}, "u") == ""
    for tenant, headers, metadata in (
        ("other", told, {"tier": "pro"}),
        ("acme", {b"x-plan": b"silver"}, {"tier": "pro"}),
        ("acme", {}, {"tier": "pro"}),
        ("acme", told, {"tier": ["pro"]}),
        ("acme", told, {}),
        ("acme", told, None),
    ):
        assert gate.why_not(tenant, headers, metadata, "u") == "audience"


def test_everybody_takes_part_where_nothing_is_said_and_the_memory_is_bounded() -> None:
    assert gate_of(entry()) is None
    gate = Gate(entry(namespace=Slice(name="n", high=0.5)))
    for number in range(10_000):
        gate.why_not("acme", {}, None, str(number))
    assert len(gate._known) <= 4096


def test_coverage_leaves_units_to_the_incumbent_and_keeps_each_arms_start() -> None:
    assert covered(spans_by_weight((0.5, 0.5)), 0.5) == (((0.0, 0.25),), ((0.5, 0.75),))  # GrowthBook's own case
    arms = tuple(
        Arm(name=arm.name, pool="p", weight=0.1, ranges=spans)
        for arm, spans in zip(ARMS, covered(spans_by_weight((0.5, 0.5)), 0.2), strict=True)
    )
    assigner = compile_experiment(ExperimentEntry(name="e", epoch=1, seed="e", unit="user", arms=arms, incumbent="a"))
    found = [assigner.assign(str(number), 0.0) for number in range(10_000)]
    out = [one for one in found if one.epoch == 0]
    assert 7_800 < len(out) < 8_200 and {one.arm.name for one in out} == {"a"}
    assert {round(one.propensity, 9) for one in found if one.epoch} == {0.1}


BASE: dict[str, Any] = {
    "strategy": "ab",
    "route": "bot",
    "arms": [{"name": "a", "pool": "p"}, {"name": "b", "pool": "p"}],
    "primary": {"metric": "success", "minimum_effect": 0.05},
}


def with_arm(**fields: Any) -> dict[str, Any]:
    return {"arms": [{"name": "a", "pool": "p"}, {"name": "b", "pool": "p", **fields}]}


def ranged(*ranges: list[list[float]]) -> dict[str, Any]:
    return {"arms": [{"name": name, "pool": "p", "ranges": one} for name, one in zip("ab", ranges, strict=True)]}


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"targeting": {}}, "targeting"),
        ({"targeting": {"tenants": ["a", "a"]}}, "targeting.tenants"),
        ({"targeting": {"tenants": ["no name"]}}, "targeting.tenants[0]"),
        ({"targeting": {"headers": {"Authorization": "Bearer x"}}}, "targeting.headers.Authorization"),
        ({"targeting": {"tenant": "a"}}, "targeting"),
        ({"namespace": {"name": "n", "range": [0.4, 0.4]}}, "namespace.range"),
        ({"namespace": {"name": "n", "range": [0.4, 1.4]}}, "namespace.range"),
        ({"namespace": {"name": "no name", "range": [0, 1]}}, "namespace.name"),
        ({"namespace": {"name": "n", "range": [0, 1]}, "unit": "request"}, "namespace"),
        ({"holdout": {"name": "n", "share": 1.0}}, "holdout.share"),
        ({"coverage": 0.0}, "coverage"),
        ({"coverage": 1.5}, "coverage"),
        ({"coverage": 0.5, "strategy": "bandit"}, "coverage"),
        ({"sticky": "unit"}, "sticky"),
        ({"sticky": "unit", "strategy": "bandit", "unit": "request"}, "sticky"),
        (ranged([[0, 0.5]], []), "arms[1]"),
        (ranged([[0, 0.5]], [[0.4, 1]]), "arms[1].ranges"),
        (ranged([[0, 0.5]], [[0.6, 1.2]]), "arms[1].ranges"),
        (with_arm(routing={"cascade": {"first": "p"}}), "arms[1].routing.cascade.first"),
        (with_arm(routing={"cascade": {"first": "q", "min_mean_logprob": 1}}), "arms[1].routing.cascade.min_mean_logprob"),
        (with_arm(routing={"cascade": {"first": "q", "finish": []}}), "arms[1].routing.cascade"),
        (with_arm(routing={"cascade": {"first": "q", "hold_tokens": 0}}), "arms[1].routing.cascade.hold_tokens"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_by_its_path(changes: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_design(BASE | changes)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"seed": 2**64}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"reasoning_effort": "much"}, "reasoning_effort"),
        ({"logprobs": "yes"}, "logprobs"),
        ({"top_k": None}, "top_k"),
        ({"metadata": {}}, "metadata"),
    ],
)
def test_an_arms_parameters_are_checked_before_it_starts(params: dict[str, Any], param: str) -> None:
    design = parse_design(BASE | with_arm(params=params))
    with pytest.raises(BadRequest) as caught:
        check_parameters(design.arms)
    assert caught.value.param == f"arms[1].params.{param}"


def test_parameters_that_engines_take_pass_and_those_nobody_listed_too() -> None:
    params = {
        "temperature": 0, "top_p": 1, "max_tokens": 5, "stop": "end", "seed": -1, "logit_bias": {"1": 2}, "min_p": 0.1,
        "guided_choice": ["a"], "reasoning_effort": "low", "logprobs": True,
    }  # fmt: skip
    check_parameters(parse_design(BASE | with_arm(params=params)).arms)


def test_ranges_of_arms_are_their_shares() -> None:
    design = parse_design(BASE | ranged([[0, 0.2]], [[0.3, 0.4], [0.5, 1.0]]))
    assert design.shares() == pytest.approx({"a": 0.25, "b": 0.75})


def test_overlap_is_of_one_name_and_a_common_part() -> None:
    one = NamespaceSpec(name="n", range=(0.0, 0.5))
    assert overlap(one, NamespaceSpec(name="n", range=(0.4, 0.6)))
    assert not overlap(one, NamespaceSpec(name="n", range=(0.5, 1.0)))
    assert not overlap(one, NamespaceSpec(name="m", range=(0.0, 0.5)))
    assert not overlap(one, None)
