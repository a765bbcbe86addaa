"""Which whole state a rollback copies."""

import msgspec
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


def test_what_is_live_is_left_whatever_failed_after_it() -> None:
    history = [past(1, "a"), past(2, "b", "live"), past(3, "c", "failed")]
    with pytest.raises(Conflict, match="To go further back"):
        choose_rollback(history, wanted="r2")
    assert choose_rollback(history, wanted="r2", leaves_live=True).number == 1


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


def test_a_second_rollback_goes_further_back_and_never_forward() -> None:
    first = [past(1, "a"), past(2, "b"), past(3, "bad")]
    once = [*first, msgspec.structs.replace(past(4, "b", "live"), source="r2")]
    assert choose_rollback(once, wanted="r4").number == 1
    twice = [
        *first,
        msgspec.structs.replace(past(4, "b"), source="r2"),
        msgspec.structs.replace(past(5, "a", "live"), source="r1"),
    ]
    with pytest.raises(NotFound, match="no earlier"):
        choose_rollback(twice, wanted="r5")


def test_after_a_promotion_that_failed_there_is_nothing_to_undo() -> None:
    history = [past(1, "a"), past(2, "b", "live"), past(3, "c", "failed")]
    with pytest.raises(Conflict, match="b still answers"):
        choose_rollback(history, wanted="r2")
    assert choose_rollback(history, wanted="r2", to="a").number == 1
