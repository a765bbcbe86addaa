"""Whether a first answer convinces."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.core.snapshot import Cascade
from penstock.routing.cascade import Draft, Judge


def convinced(draft: dict[str, Any], **rule: Any) -> bool:
    told = {"text": "It is on its way.", "logprobs": [-0.1, -0.3], "finish": "stop", **draft}
    return Judge(Cascade(first="a", then="b", **rule)).convinced([Draft(**told)])


@pytest.mark.parametrize(
    ("rule", "draft", "expected"),
    [
        ({"min_mean_logprob": -0.2}, {}, True),
        ({"min_mean_logprob": -0.19}, {}, False),
        ({"min_token_logprob": -0.3}, {}, True),
        ({"min_token_logprob": -0.29}, {}, False),
        ({"min_mean_logprob": -9.0}, {"logprobs": None}, False),
        ({"min_mean_logprob": -9.0}, {"logprobs": []}, False),
        ({}, {"logprobs": None}, True),
        ({}, {"finish": "length"}, False),
        ({"finish": ()}, {"finish": "length"}, True),
        ({}, {"finish": ""}, True),
        ({"patterns": ("(?i)IS ON", "x")}, {}, False),
        ({"patterns": ("sorry",)}, {}, True),
    ],
)
def test_a_rule(rule: dict[str, Any], draft: dict[str, Any], expected: bool) -> None:
    assert convinced(draft, **rule) is expected


def test_every_choice_must_convince_and_there_must_be_one() -> None:
    judge = Judge(Cascade(first="a", then="b", min_mean_logprob=-1.0))
    good, bad = Draft(text="", logprobs=[-0.5]), Draft(text="", logprobs=[-1.5])
    assert judge.convinced([good, good])
    assert not judge.convinced([good, bad])
    assert not judge.convinced([])


@given(st.lists(st.floats(-20, 0), min_size=1), st.floats(-20, 0), st.floats(-20, 0))
def test_a_lower_threshold_never_asks_more(logprobs: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    for name in ("min_mean_logprob", "min_token_logprob"):
        if convinced({"logprobs": logprobs}, **{name: high}):
            assert convinced({"logprobs": logprobs}, **{name: low})


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(BadRequest):
        Judge(Cascade(first="a", then="b", patterns=("(",)))
