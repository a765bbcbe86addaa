"""Which whole state a rollback copies."""

import pytest

from penstock.core.errors import Conflict, NotFound
from penstock.delivery.revisions import Past, RevisionState, Whole, choose_rollback


def past(number: int, label: str, state: RevisionState = "superseded", replicas: int = 1) -> Past:
    return Past(id=f"r{number}", number=number, state=state, whole=Whole(label=label, digest=label, replicas=replicas))


def test_the_state_before_the_live_one_is_chosen() -> None:
    history = [past(1, "a"), past(2, "b"), past(3, "c", "live")]
    assert choose_rollback(history, wanted="r3").number == 2
    assert choose_rollback(history, wanted="r3", to="a").number == 1
    assert choose_rollback(history, wanted="r3", to="1").number == 1


def test_what_failed_or_is_the_same_state_is_passed_over() -> None:
    history = [past(1, "a"), past(2, "x", "failed"), past(3, "b"), past(4, "b", "live")]
    assert choose_rollback(history, wanted="r4").number == 1
    assert choose_rollback([past(1, "a", replicas=2), past(2, "a", "live")], wanted="r2").number == 1


def test_rolling_back_from_what_is_warming_up_goes_to_what_is_live() -> None:
    history = [past(1, "a"), past(2, "b", "live"), past(3, "c", "pending")]
    assert choose_rollback(history, wanted="r3").number == 2


def test_without_an_earlier_state_it_is_said() -> None:
    with pytest.raises(NotFound, match="no earlier"):
        choose_rollback([past(1, "a", "live")], wanted="r1")
    history = [past(1, "a"), past(2, "x", "failed"), past(3, "b", "live")]
    with pytest.raises(NotFound, match="no revision 'z'"):
        choose_rollback(history, wanted="r3", to="z")
    with pytest.raises(Conflict, match="never served"):
        choose_rollback(history, wanted="r3", to="x")
    with pytest.raises(Conflict, match="already"):
        choose_rollback(history, wanted="r3", to="b")
