"""Rules in order; every condition that is given must hold."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.core.snapshot import ChooseRule
from penstock.routing.choose import Asked, Chooser


def asked(**changes: Any) -> Asked:
    return Asked(
        **{
            "prompt_tokens": 100,
            "answer_tokens": 50,
            "messages": 3,
            "tenant": "acme",
            "headers": {b"x-tier": b"gold", b"accept-language": b"de"},
            "metadata": {"team": "support", "n": 3},
            "last_user": "Please translate this",
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("rule", "fits", "not_"),
    [
        ({"min_prompt_tokens": 100}, {}, {"prompt_tokens": 99}),
        ({"max_prompt_tokens": 100}, {}, {"prompt_tokens": 101}),
        ({"min_answer_tokens": 50}, {"answer_tokens": None}, {"answer_tokens": 49}),
        ({"max_answer_tokens": 50}, {}, {"answer_tokens": None}),
        ({"max_answer_tokens": 50}, {"answer_tokens": 1}, {"answer_tokens": 51}),
        ({"min_messages": 3}, {}, {"messages": 2}),
        ({"max_messages": 3}, {}, {"messages": 4}),
        ({"tools": True}, {"tools": True}, {}),
        ({"tools": False}, {}, {"tools": True}),
        ({"stream": True}, {"stream": True}, {}),
        ({"tenants": ("acme", "b")}, {}, {"tenant": "c"}),
        ({"headers": {"X-Tier": "gold"}}, {}, {"headers": {b"x-tier": b"golden"}}),
        ({"headers": {"x-tier": "gold"}}, {}, {"headers": {}}),
        ({"metadata": {"team": "support"}}, {}, {"metadata": {"team": ["support"]}}),
        ({"metadata": {"n": "3"}}, {"metadata": {"n": "3"}}, {}),
        ({"last_user": "(?i)TRANSLATE"}, {}, {"last_user": "sum this up"}),
        ({"tools": False, "min_messages": 3}, {}, {"messages": 1}),
    ],
)
def test_a_condition(rule: dict[str, Any], fits: dict[str, Any], not_: dict[str, Any]) -> None:
    chooser = Chooser([ChooseRule(pool="p", **rule)])
    assert chooser.choose(asked(**fits)) == "p"
    assert chooser.choose(asked(**not_)) is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10)), max_size=6), st.integers(0, 10))
def test_the_first_that_fits_decides(rules: list[tuple[str, int]], tokens: int) -> None:
    chooser = Chooser([ChooseRule(pool=pool, min_prompt_tokens=least) for pool, least in rules])
    fitting = [pool for pool, least in rules if tokens >= least]
    assert chooser.choose(asked(prompt_tokens=tokens)) == (fitting[0] if fitting else None)


def test_a_rule_without_conditions_takes_everything() -> None:
    assert Chooser([ChooseRule(pool="p")]).choose(asked()) == "p"


def test_a_pattern_that_is_none_is_named() -> None:
    with pytest.raises(BadRequest) as caught:
        Chooser([ChooseRule(pool="p"), ChooseRule(pool="p", last_user="(a")])
    assert caught.value.param == "choose[1].last_user"


def test_lone_surrogates_of_a_text_harm_nothing() -> None:
    assert Chooser([ChooseRule(pool="p", last_user="a")]).choose(asked(last_user="a\ud800")) == "p"
