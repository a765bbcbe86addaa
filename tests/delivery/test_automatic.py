"""What alerts may do to a deployment: each reason not to act, and that nothing else keeps it from acting."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.delivery.automatic import AlertPolicy, FiredAlert, Standing, decide

POLICY = AlertPolicy(alerts=("PenstockOutputDrift",))
ALERT = FiredAlert(sequence=7, name="PenstockOutputDrift", summary="It is worse.", starts_at=1_100.0, label="v2")
LIVE = Standing(environment="production", model="bot", label="v2", number=2, action="promote", live_at=1_000.0)
NOW = 1_200.0


def test_a_young_revision_that_degrades_is_rolled_back_and_the_record_says_why() -> None:
    found = decide(POLICY, ALERT, LIVE, NOW)
    assert found.action == "rollback"
    assert found.reason == "PenstockOutputDrift (alert 7): It is worse."
    elsewhere = msgspec.structs.replace(LIVE, asked_otherwise=True)
    assert decide(POLICY, ALERT, elsewhere, NOW).action == "rollback"  # errors, say, are no matter of what is asked
    hold = msgspec.structs.replace(POLICY, action="hold")
    assert decide(hold, ALERT, LIVE, NOW).action == "hold"


@pytest.mark.parametrize(
    ("alert", "standing", "policy", "says"),
    [
        ({"label": "v1"}, {}, {}, "is about bot:v1; bot:v2 is live"),
        ({}, {"settled": False}, {}, "about to go live"),
        ({}, {"experiments": ("try",)}, {}, "The experiment try decides"),
        ({}, {"action": "rollback"}, {}, "not rolled back"),
        ({"starts_at": 999.0}, {}, {}, "began before"),
        ({"signal": "perplexity"}, {"asked_otherwise": True}, {}, "asked other things"),
        ({}, {}, {"young_s": 100.0}, "live for longer than 100 s"),
        ({}, {"acted_at": 1_150.0}, {}, "within the last 3600 s"),
        ({}, {"earlier": False}, {}, "nothing earlier than bot:v2"),
        ({}, {}, {"action": "none"}, "only watches"),
    ],
)
def test_each_reason_to_do_nothing(
    alert: dict[str, Any], standing: dict[str, Any], policy: dict[str, Any], says: str
) -> None:
    replace = msgspec.structs.replace
    found = decide(replace(POLICY, **policy), replace(ALERT, **alert), replace(LIVE, **standing), NOW)
    assert found.action == "none"
    assert says in found.reason
    waits = ("about to go live", "The experiment try", "asked other things", "within the last")
    assert found.passing == says.startswith(waits)


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.sampled_from(["v1", "v2", ""])), max_size=30),
    st.floats(1, 5e3),
)
def test_however_often_alerts_fire_one_revision_goes_once(fired: list[tuple[float, str]], cool_down: float) -> None:
    """What a roll-back leaves is never rolled back, cool-down or not."""
    policy = msgspec.structs.replace(POLICY, cool_down_s=cool_down)
    standing, acted = LIVE, 0
    for number, (after, label) in enumerate(sorted(fired)):
        now = 1_000.0 + after
        alert = FiredAlert(sequence=number, name="PenstockOutputDrift", summary="", starts_at=now, label=label)
        if decide(policy, alert, standing, now).action == "rollback":
            acted += 1
            standing = msgspec.structs.replace(
                standing, label="v1", number=3, action="rollback", live_at=now, acted_at=now
            )
    assert acted <= 1
