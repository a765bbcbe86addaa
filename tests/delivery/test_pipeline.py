"""What to do next in a pipeline: every step by its table, and properties of all of them."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.delivery.pipeline import (
    ASKS,
    PUSH_S,
    Act,
    End,
    EvaluationSeen,
    GateFound,
    Move,
    Seen,
    Step,
    StepKind,
    Wait,
    after_refusal,
    decide,
    plan_steps,
)


def move(kind: StepKind, seen: Seen, *, now: float = 100.0, patience_s: float = 60.0, **step: Any) -> Move:
    return decide(Step(kind=kind, environment="production", since=0.0, **step), seen, now=now, patience_s=patience_s)


def gate(name: str, state: str, words: str = "", command: str = "") -> GateFound:
    return GateFound(gate=name, state=state, words=words, command=command)


def test_the_served_environment_gets_a_canary_and_the_others_a_promotion() -> None:
    assert plan_steps(("dev", "production", "europe"), served="production") == (
        ("push", ""),
        ("scan", ""),
        ("build", ""),
        ("gate", "dev"),
        ("promote", "dev"),
        ("gate", "production"),
        ("canary", "production"),
        ("gate", "europe"),
        ("promote", "europe"),
    )


def test_a_push_is_waited_for_and_is_of_these_files() -> None:
    assert isinstance(move("push", Seen(wanted="a")), Wait)
    assert move("push", Seen(wanted="a"), now=PUSH_S) == End(
        state="failed", words="Its files did not come within 24 hours."
    )
    assert move("push", Seen(pushed="a", wanted="a")) == End(state="done", words="Its files are committed.")
    other = move("push", Seen(pushed="b", wanted="a"))
    assert isinstance(other, End)
    assert other.state == "refused"


def test_a_scan_is_made_once_and_what_it_found_ends_the_pipeline() -> None:
    assert move("scan", Seen()) == Act(deed="scan")
    assert move("scan", Seen(scan=True, words="Sound.")) == End(state="done", words="Sound.")
    assert move("scan", Seen(scan=False, words="A pickle.")) == End(state="refused", words="A pickle.")


def test_a_build_that_is_there_needs_none_and_one_that_failed_is_not_asked_for_again() -> None:
    assert move("build", Seen(build="openvino-int8")) == End(state="done", words="openvino-int8 is there.")
    assert move("build", Seen()) == Act(deed="build")
    assert move("build", Seen(building="failed", words="No torch.")) == Act(deed="build")  # of an earlier pipeline
    for state in ("queued", "running", "storing"):
        assert move("build", Seen(building=state, words="Soon."), asks=1) == Wait(words="Soon.")
    assert move("build", Seen(building="failed", words="No torch."), asks=1) == End(
        state="failed", words="It could not be built. No torch."
    )


def test_gates_are_evaluated_before_they_refuse_and_all_figures_are_there_then() -> None:
    worse = gate("suite questions", "failed", "90 %, 99 % before: -9 points.")
    unknown = gate("smoke", "missing", "It was not done.")
    assert move("gate", Seen()) == End(state="done", words="production asks nothing of it.")
    assert move("gate", Seen(gates=())) == End(state="done", words="production asks nothing of this model.")
    assert move("gate", Seen(gates=(worse, unknown))) == Act(deed="evaluate")
    going = EvaluationSeen(what="questions of bot:v1", state="running", done=5, total=173)
    assert move("gate", Seen(gates=(), evaluations=(going,)), asks=1) == Wait(
        words="Evaluated: questions of bot:v1 5 of 173."
    )
    assert move("gate", Seen(gates=(worse, gate("smoke", "passed"))), asks=1) == End(
        state="refused", words="suite questions: 90 %, 99 % before: -9 points."
    )
    assert move("gate", Seen(gates=(gate("smoke", "passed"), gate("scan", "passed")))) == End(
        state="done", words="Passed: smoke, scan."
    )


def test_what_cannot_be_evaluated_ends_it_as_failed() -> None:
    unknown = gate("suite questions", "missing", "It was not evaluated.")
    broken = EvaluationSeen(what="questions of bot:v1", state="failed", detail="The engine died.")
    ended = move("gate", Seen(gates=(unknown,), evaluations=(broken,)), asks=1)
    assert ended == End(
        state="failed", words="An evaluation could not be made. questions of bot:v1 failed: The engine died."
    )
    assert move("gate", Seen(gates=(unknown,)), asks=ASKS - 1) == Act(deed="evaluate")
    ended = move("gate", Seen(gates=(unknown,)), asks=ASKS)
    assert isinstance(ended, End)
    assert ended.state == "failed"


def test_people_are_waited_for_as_long_as_was_said() -> None:
    seen = Seen(gates=(gate("scan", "passed"), gate("approval", "missing", "1 is missing.", "penstock approve x")))
    waits = move("gate", seen, now=100.0)
    assert waits == Wait(words="It waits for people. approval: 1 is missing. [penstock approve x]", people=True)
    assert isinstance(move("gate", seen, now=159.0, waits_since=100.0), Wait)
    assert move("gate", seen, now=160.0, waits_since=100.0) == End(
        state="refused", words="approval: 1 is missing. [penstock approve x]"
    )
    assert isinstance(move("gate", seen, patience_s=0.0), End)  # in CI: not at all


def test_a_deployment_is_begun_once_and_ends_as_its_canary_or_revision_does() -> None:
    assert move("promote", Seen()) == Act(deed="promote")
    assert move("promote", Seen(occupied=True)) == Act(deed="promote")
    assert move("canary", Seen()) == Act(deed="promote")  # nothing to compare it with
    assert move("canary", Seen(occupied=True)) == Act(deed="canary")
    assert isinstance(move("canary", Seen(occupied=True, live=True)), End)
    assert isinstance(move("promote", Seen(revision="pending")), Wait)
    assert move("promote", Seen(revision="failed", words="Too large.")) == End(state="failed", words="Too large.")
    for state in ("live", "superseded"):
        assert move("promote", Seen(revision=state)) == End(state="done", words="It is live in production.")
    assert isinstance(move("canary", Seen(canary="running", occupied=True, words="5 %")), Wait)
    assert move("canary", Seen(canary="promoted", words="Good.")) == End(state="done", words="Good.")
    for state in ("rolled_back", "aborted"):
        assert move("canary", Seen(canary=state, words="Bad.")) == End(state="refused", words="Bad.")


@pytest.mark.parametrize("code", ["canary_running", "promotion_under_way", "generation_conflict"])
def test_what_passes_is_tried_again(code: str) -> None:
    assert after_refusal(code, "Later.") == Wait(words="Later.")
    assert after_refusal("version_blocked", "No.") == End(state="refused", words="No.")


SEEN = st.builds(
    Seen,
    pushed=st.sampled_from(["", "a", "b"]),
    wanted=st.sampled_from(["a"]),
    scan=st.sampled_from([None, True, False]),
    build=st.sampled_from(["", "openvino-int8"]),
    building=st.sampled_from(["", "queued", "running", "storing", "failed", "cancelled"]),
    gates=st.none()
    | st.lists(
        st.builds(
            GateFound,
            gate=st.sampled_from(["scan", "smoke", "card", "suite x", "approval", "signature"]),
            state=st.sampled_from(["passed", "failed", "missing"]),
            words=st.just(""),
        ),
        max_size=4,
    ).map(tuple),
    evaluations=st.lists(
        st.builds(
            EvaluationSeen,
            what=st.just("x"),
            state=st.sampled_from(["queued", "running", "done", "failed", "cancelled"]),
        ),
        max_size=3,
    ).map(tuple),
    revision=st.sampled_from(["", "pending", "live", "failed", "superseded"]),
    canary=st.sampled_from(["", "running", "promoted", "rolled_back", "aborted"]),
    live=st.booleans(),
    occupied=st.booleans(),
)


@given(
    kind=st.sampled_from(get_args(StepKind)),
    seen=SEEN,
    asks=st.integers(0, 5),
    now=st.floats(0, 2e5),
    patience_s=st.floats(0, 1e5),
)
def test_nothing_is_done_twice_and_nothing_done_that_was_not_proven(
    kind: StepKind, seen: Seen, asks: int, now: float, patience_s: float
) -> None:
    found = move(kind, seen, now=now, patience_s=patience_s, asks=asks)
    if isinstance(found, Act):
        if found.deed in ("promote", "canary"):
            assert not seen.revision
            assert not seen.canary
        if found.deed == "build":
            assert asks == 0
        if found.deed == "evaluate":
            assert asks < ASKS
    elif isinstance(found, End) and found.state == "done" and kind == "gate":
        assert all(one.state == "passed" for one in seen.gates or ())
