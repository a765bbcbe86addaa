"""What is blocked is not deployed, under whatever label, and only where it is blocked."""

import pytest

from penstock.core.errors import Conflict
from penstock.delivery.blocks import Block, blocked_digests, check_unblocked
from penstock.delivery.revisions import choose_rollback
from tests.delivery.test_revisions import past

BLOCK = Block(
    environment="production",
    model="bot",
    label="v2.0.0",
    digest="sha256:b",
    reason="Its error rate tripped a guardrail.",
    principal="penstock",
    at=1.0,
)


def test_a_blocked_version_is_refused_with_who_and_why_and_how_to_clear_it() -> None:
    with pytest.raises(Conflict, match="penstock: Its error rate") as raised:
        check_unblocked([BLOCK], model="bot", label="v2.0.0", digest="sha256:b", environment="production")
    assert raised.value.code == "version_blocked"
    assert "penstock blocks clear bot:v2.0.0 --in production" in (raised.value.hint or "")


def test_the_same_files_under_another_label_are_refused_and_others_are_not() -> None:
    with pytest.raises(Conflict, match=r"as v2\.0\.0"):
        check_unblocked([BLOCK], model="bot", label="v2.0.1", digest="sha256:b", environment="production")
    check_unblocked([BLOCK], model="bot", label="v2.0.1", digest="sha256:c", environment="production")
    check_unblocked([BLOCK], model="bot", label="v2.0.0", digest="sha256:b", environment="staging")


def test_a_rollback_passes_over_what_is_blocked() -> None:
    history = [past(1, "a"), past(2, "b"), past(3, "c", "live")]
    blocked = blocked_digests(
        [Block(environment="production", model="bot", label="b", digest="b", reason="", principal="x", at=0.0)],
        model="bot",
        environment="production",
    )
    assert choose_rollback(history, wanted="r3", blocked=blocked).number == 1
    with pytest.raises(Conflict, match="blocked here"):
        choose_rollback(history, wanted="r3", to="b", blocked=blocked)
