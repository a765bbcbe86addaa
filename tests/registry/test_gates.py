"""Gates: what is missing is named with what would supply it, what is worse is refused with the figures, and nothing counts for something else."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.registry.comparison import ItemResult
from penstock.registry.gates import (
    DAY_S,
    Approval,
    ApprovalGate,
    Evidence,
    Found,
    GatePolicy,
    Judgement,
    Outcome,
    SignatureGate,
    SmokeGate,
    Subject,
    SuiteGate,
    judge_gates,
    refusal,
)

SUBJECT = Subject(
    reference="bot:v2", digest="sha256:" + "2" * 64, environment="production", pushed_by="ann", pusher="prn_ann"
)
NOW = 1e9


def answers(right: int, of: int, *, first: int = 0, slices: str = "a") -> tuple[ItemResult, ...]:
    """`of` items, of which `right` are right, from the item `first` on."""
    return tuple(
        ItemResult(id=f"{slices}{number}", right=(number - first) % of < right, slices={"topic": slices})
        for number in range(of)
    )


def found(items: tuple[ItemResult, ...], at: float = NOW, name: str = "eval_1") -> Found:
    return Found(id=name, finished_at=at, items=items)


def judged(policy: GatePolicy, evidence: Evidence) -> Judgement:
    return judge_gates(policy, SUBJECT, evidence, NOW)


def only(policy: GatePolicy, evidence: Evidence) -> Outcome:
    [one] = judged(policy, evidence).outcomes
    return one


SUITE = GatePolicy(suites=(SuiteGate(suite="questions", margin=0.02, slices=("topic",)),))


def test_all_that_is_missing_is_named_with_its_command() -> None:
    policy = GatePolicy(
        scan=True,
        signature=SignatureGate(signers=("release",)),
        smoke=SmokeGate(),
        card=True,
        suites=(SuiteGate(suite="questions"),),
        approval=ApprovalGate(),
    )
    told = judged(policy, Evidence(card_missing=("the field 'license'",)))
    assert [one.gate for one in told.open] == ["scan", "signature", "smoke", "card", "suite questions", "approval"]
    words = refusal(told.open, SUBJECT)
    for part in (
        "bot:v2 does not pass the gates of production",
        "penstock gates run bot:v2 --for production",
        "penstock models sign bot:v2 --signer release",
        "the field 'license'",
        "by somebody other than ann",
        "penstock approve bot:v2 --for production",
    ):
        assert part in words


def test_a_worse_version_is_refused_with_the_figures() -> None:
    evidence = Evidence(
        suites={"questions": found(answers(80, 100))},
        incumbents={"questions": found(answers(95, 100))},
        incumbent="bot:v1",
    )
    told = only(SUITE, evidence)
    assert told.state == "failed"
    assert "80.0 % right, bot:v1 95.0 %, on the same 100 items: -15.0 points" in told.words
    figure = told.figures[0]
    assert (figure["candidate"], figure["incumbent"], figure["items"]) == (0.8, 0.95, 100)
    low = figure["low"]
    assert isinstance(low, float)
    assert low < -0.15


def test_an_equal_version_passes() -> None:
    same = found(answers(190, 200))
    told = only(SUITE, Evidence(suites={"questions": same}, incumbents={"questions": same}, incumbent="bot:v1"))
    assert told.state == "passed", told.words


def test_a_better_whole_does_not_hide_a_worse_slice() -> None:
    mine = (*answers(160, 200), *answers(5, 20, slices="b"))
    other = (*answers(80, 200), *answers(20, 20, slices="b"))
    told = only(
        SUITE, Evidence(suites={"questions": found(mine)}, incumbents={"questions": found(other)}, incumbent="v1")
    )
    assert told.state == "failed"
    assert told.words.startswith("topic b: 25.0 % right")
    assert [one["slice"] for one in told.figures] == ["", "topic a", "topic b"]


def test_a_suite_that_is_too_small_says_how_many_items_would_do() -> None:
    mine, other = answers(9, 10), answers(9, 10, first=1)
    told = only(
        SUITE, Evidence(suites={"questions": found(mine)}, incumbents={"questions": found(other)}, incumbent="v1")
    )
    assert told.state == "failed"
    assert "items would" in told.words


def test_what_is_out_of_date_or_of_nobody_is_missing() -> None:
    old = found(answers(95, 100), at=NOW - 31 * DAY_S)
    new = found(answers(95, 100))
    assert only(SUITE, Evidence(suites={"questions": old})).words == "Its evaluation is out of date."
    told = only(SUITE, Evidence(suites={"questions": new}, incumbents={"questions": old}, incumbent="bot:v1"))
    assert told.state == "missing"
    assert "bot:v1, which is live, was not evaluated lately" in told.words
    running = Evidence(under_way={"questions": "The evaluation e runs, 3 of 9"})
    assert only(SUITE, running).words == "The evaluation e runs, 3 of 9"


def test_where_nothing_is_live_only_the_floor_counts() -> None:
    floor = GatePolicy(suites=(SuiteGate(suite="questions", at_least=0.9),))
    assert only(SUITE, Evidence(suites={"questions": found(answers(10, 100))})).state == "passed"
    assert only(floor, Evidence(suites={"questions": found(answers(99, 100))})).state == "passed"
    refused = only(floor, Evidence(suites={"questions": found(answers(92, 100))}))
    assert refused.state == "failed"
    assert "at least 90.0 % is asked for" in refused.words


def canaries(bits: list[float], *, leaked: bool = False) -> tuple[ItemResult, ...]:
    return tuple(
        ItemResult(id=f"c{number}", family="memorisation", right=not leaked, value=one)
        for number, one in enumerate(bits)
    )


def test_canaries_that_rank_first_are_refused_and_those_that_rank_anywhere_pass() -> None:
    assert only(SUITE, Evidence(suites={"questions": found(canaries([8, 8, 7.4]))})).state == "failed"
    assert only(SUITE, Evidence(suites={"questions": found(canaries([1.2, 0.1, 3.0]))})).state == "passed"
    told = only(SUITE, Evidence(suites={"questions": found(canaries([1.2, 0.1], leaked=True))}))
    assert told.state == "failed"
    assert "it completes c0, c1 with the secret" in told.words


def test_latency_and_perplexity_may_rise_by_their_margin_alone() -> None:
    def measured(times: float) -> Found:
        rows = [
            ItemResult(id=f"p{i}", family="perplexity", value=(5 + i) * times * (1.01 if i % 2 else 0.99))
            for i in range(20)
        ]
        return found(tuple(rows))

    for times, state in ((1.02, "passed"), (1.3, "failed"), (0.5, "passed")):
        evidence = Evidence(
            suites={"questions": measured(times)}, incumbents={"questions": measured(1.0)}, incumbent="v1"
        )
        assert only(SUITE, evidence).state == state


def test_who_refuses_what_is_timed_is_worse_and_a_bound_counts_as_right_and_wrong() -> None:
    def timed(seconds: float | None, *, right: bool | None = None) -> Found:
        return found(tuple(ItemResult(id=f"t{i}", family="latency", value=seconds, right=right) for i in range(20)))

    evidence = Evidence(
        suites={"questions": timed(None, right=False)}, incumbents={"questions": timed(1.0)}, incumbent="v1"
    )
    told = only(SUITE, evidence)
    assert (told.state, told.words) == ("failed", "latency: it answered 0 of the 20 items that v1 did.")
    floor = GatePolicy(suites=(SuiteGate(suite="questions", at_least=0.5),))
    assert only(floor, Evidence(suites={"questions": timed(9.0, right=False)})).state == "failed"
    assert only(floor, Evidence(suites={"questions": timed(1.0, right=True)})).state == "passed"


APPROVAL = GatePolicy(approval=ApprovalGate(valid_days=7))


def approval(**more: object) -> Approval:
    told = judged(APPROVAL, Evidence())
    whole = Approval(
        principal="bob", person="prn_bob", at=NOW, policy_hash=told.policy_hash, results_hash=told.results_hash
    )
    return msgspec.structs.replace(whole, **more)


def test_an_approval_counts_for_the_policy_the_results_and_the_days_that_it_was_given_for() -> None:
    assert only(APPROVAL, Evidence(approvals=(approval(),))).state == "passed"
    for other, words in (
        ({"principal": "anna", "person": "prn_ann"}, "anna pushed it"),
        ({"person": ""}, "of a key that belongs to nobody"),
        ({"disabled": True}, "bob is disabled"),
        ({"at": NOW - 8 * DAY_S}, "out of date"),
        ({"policy_hash": "x"}, "another policy"),
        ({"results_hash": "x"}, "other results"),
    ):
        told = only(APPROVAL, Evidence(approvals=(approval(**other),)))
        assert told.state == "missing"
        assert words in told.words
    two = GatePolicy(approval=ApprovalGate(count=2))
    assert (
        only(two, Evidence(approvals=(approval(policy_hash=two.hash), approval(policy_hash=two.hash)))).state
        == "missing"
    )


def test_people_count_and_not_their_names() -> None:
    two = GatePolicy(approval=ApprovalGate(count=2))
    first, again, other = (
        approval(policy_hash=two.hash, principal=name, person=person)
        for name, person in (("bob", "prn_bob"), ("robert", "prn_bob"), ("bob", "prn_bobs_twin"))
    )
    assert only(two, Evidence(approvals=(first, again))).state == "missing"
    assert only(two, Evidence(approvals=(first, again, other))).state == "passed"


def test_where_nobody_knows_who_pushed_nobody_is_another() -> None:
    given = approval()
    for pushed_with, command in (("key_1", "penstock keys adopt key_1 --principal NAME"), ("", "")):
        subject = msgspec.structs.replace(SUBJECT, pusher="", pushed_with=pushed_with)
        [told] = judge_gates(APPROVAL, subject, Evidence(approvals=(given,)), NOW).outcomes
        assert (told.state, told.command) == ("missing", command)
        assert "belongs to no principal" in told.words
        anybody = GatePolicy(approval=ApprovalGate(by_other=False))
        one = approval(policy_hash=anybody.hash)
        assert not judge_gates(anybody, subject, Evidence(approvals=(one,)), NOW).open


def test_other_results_void_an_approval() -> None:
    policy = GatePolicy(suites=SUITE.suites, approval=ApprovalGate())
    good = Evidence(suites={"questions": found(answers(95, 100))})
    told = judged(policy, good)
    given = Approval(
        principal="bob", person="prn_bob", at=NOW, policy_hash=told.policy_hash, results_hash=told.results_hash
    )
    assert not judged(policy, msgspec.structs.replace(good, approvals=(given,))).open
    again = Evidence(suites={"questions": found(answers(50, 100), name="eval_2")}, approvals=(given,))
    assert [one.gate for one in judged(policy, again).open] == ["approval"]


def test_a_policy_for_other_models_asks_nothing() -> None:
    assert judged(GatePolicy(models=("other",), scan=True), Evidence()).outcomes == ()
    assert judged(GatePolicy(suites=(SuiteGate(suite="x", models=("other",)),)), Evidence()).outcomes == ()


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_wider_margin_never_refuses_what_a_narrower_one_lets_in(
    mine: int, other: int, one: float, two: float
) -> None:
    evidence = Evidence(
        suites={"s": found(answers(mine, 60))}, incumbents={"s": found(answers(other, 60))}, incumbent="v1"
    )
    states = [only(GatePolicy(suites=(SuiteGate(suite="s", margin=m),)), evidence).state for m in sorted((one, two))]
    assert states != ["passed", "failed"]
