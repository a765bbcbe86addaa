"""Guardrails: a bad canary trips within its bound, a good one does not, and one client alone cannot do it."""

import math
import random

import pytest

from penstock.core.exchange import Exchange, Phases
from penstock.experiments.design import Design, parse_design
from penstock.experiments.fold import Folding, Statistics, UnitRecord, guardrail_limit
from penstock.experiments.guardrails import BAD_EVENTS, Guardrail, log_evidence, with_bad_event
from penstock.experiments.metrics import GUARDRAILS
from tests.experiments.test_design import spec

FIVE = ["error_rate", "latency_p95", "refusal", "success", "reports"]


def canary(guardrails: list[str], share: float = 0.1) -> tuple[Design, Folding]:
    design = parse_design(
        spec(
            strategy="canary",
            guardrails=[{"metric": name} for name in guardrails],
            plan={"steps": [share], "guardrail_alpha": 0.01},
        )
    )
    return design, Folding(design, Statistics(shares={1: design.shares()}))


def exchange(number: int, arm: str, *, failed: bool = False, latency: float = 0.2) -> Exchange:
    return Exchange(
        id=f"r{number}",
        at=float(number),
        experiment="e",
        arm=arm,
        epoch=1,
        outcome="error" if failed else "ok",
        phases=Phases(done=int(latency * 1e9)),
    )


def until_tripped(
    rng: random.Random, error: tuple[float, float], most: int, guardrails: list[str], share: float = 0.1
) -> int | None:
    """After how many canary requests error_rate trips, of control's and treatment's error rates; None: not within `most`.

    Requests that do not fail change nothing of it (`test_what_does_not_fail_changes_no_evidence`), so only the others are folded in.
    """
    design, _ = canary(guardrails, share)
    guardrail, limit, shares = Guardrail(metric="error_rate"), guardrail_limit(design), {1: design.shares()}
    seen = number = 0
    while seen < most:
        number += 1
        arm = "treatment" if rng.random() < share else "control"
        seen += arm == "treatment"
        if rng.random() >= error[arm == "treatment"]:
            continue
        guardrail = with_bad_event(
            guardrail, epoch=1, arm=arm, control="control", shares=shares, margin=0.0, limit=limit, sequence=number
        )
        if guardrail.tripped:
            return seen
    return None


def test_what_does_not_fail_changes_no_evidence() -> None:
    rng = random.Random(40)
    (_, whole), (design, failures) = canary(FIVE), canary(FIVE)
    alone, shares = Guardrail(metric="error_rate"), {1: design.shares()}
    for number in range(3000):
        arm = "treatment" if rng.random() < 0.1 else "control"
        failed = rng.random() < (0.05 if arm == "treatment" else 0.02)
        one = exchange(number, arm, failed=failed)
        whole.exposed(UnitRecord(arm=arm, first_at=0.0, values={}, bad={}), one, number)
        if failed:
            failures.exposed(UnitRecord(arm=arm, first_at=0.0, values={}, bad={}), one, number)
            alone = with_bad_event(
                alone, epoch=1, arm=arm, control="control", shares=shares, margin=0.0, limit=guardrail_limit(design),
                sequence=number,
            )  # fmt: skip
    assert whole.statistics.guardrails["error_rate"] == failures.statistics.guardrails["error_rate"] == alone
    assert sum(alone.bad["1"].values()) > 30


@pytest.mark.parametrize(
    ("error", "guardrails", "bound", "share_of_runs"),
    [
        ((0.01, 0.10), ["error_rate"], 150, 0.9),
        ((0.01, 0.10), FIVE, 200, 0.9),
        ((0.01, 1.0), FIVE, 15, 1.0),
    ],
)
def test_a_bad_canary_trips_within_its_bound(
    error: tuple[float, float], guardrails: list[str], bound: int, share_of_runs: float
) -> None:
    rng = random.Random(41)
    runs = 40
    within = sum(until_tripped(rng, error, bound, guardrails) is not None for _ in range(runs))
    assert within / runs >= share_of_runs


def test_a_good_canary_does_not_trip() -> None:
    rng = random.Random(43)
    assert sum(until_tripped(rng, (0.01, 0.01), 1500, ["error_rate"]) is not None for _ in range(60)) <= 1


def test_a_common_outage_is_not_the_canarys_fault() -> None:
    rng = random.Random(47)
    assert sum(until_tripped(rng, (0.6, 0.6), 800, ["error_rate"]) is not None for _ in range(30)) <= 1


def test_one_broken_client_cannot_trip_it() -> None:
    _, folding = canary(["error_rate"])
    for number in range(1000):
        unit = UnitRecord(arm="control", first_at=0.0, values={}, bad={})
        folding.exposed(unit, exchange(number, "control"), number)
    broken = UnitRecord(arm="treatment", first_at=0.0, values={}, bad={})
    for number in range(1000, 1500):
        folding.exposed(broken, exchange(number, "treatment", failed=True), number)
    assert not folding.statistics.guardrails["error_rate"].tripped
    assert folding.statistics.guardrails["error_rate"].bad == {"1": {"treatment": 1}}


def test_slow_answers_trip_the_latency_guardrail_against_the_controls_own_threshold() -> None:
    rng = random.Random(53)
    _, folding = canary(["latency_p95"], 0.5)
    tripped_at = None
    for number in range(4000):
        arm = "treatment" if rng.random() < 0.5 else "control"
        latency = rng.lognormvariate(-2, 0.3) * (1.6 if arm == "treatment" else 1)
        unit = UnitRecord(arm=arm, first_at=0.0, values={}, bad={})
        folding.exposed(unit, exchange(number, arm, latency=latency), number)
        if folding.statistics.guardrails["latency_p95"].tripped:
            tripped_at = number
            break
    assert tripped_at is not None
    assert tripped_at < 1500
    threshold = folding.statistics.guardrails["latency_p95"].threshold / 1e9
    assert threshold == pytest.approx(math.exp(-2 + 1.645 * 0.3), rel=0.2)


def test_words_trip_it_too_and_say_who() -> None:
    _, folding = canary(["success"], 0.5)
    for number in range(60):
        arm = "treatment" if number % 2 else "control"
        unit = UnitRecord(arm=arm, first_at=0.0, values={}, bad={})
        folding.exposed(unit, exchange(number, arm), number)
        folding.told(unit, 1, "success", int(arm == "control"), number)
    guardrail = folding.statistics.guardrails["success"]
    assert guardrail.tripped == "treatment"
    assert guardrail.tripped_at < 40


def test_evidence_is_an_expectation_of_at_most_one_and_margins_forgive() -> None:
    # All 2^8 histories of eight bad events at the null: the e-value's mean is 1.
    null = 0.1
    mean = sum(
        math.comb(8, k) * null**k * (1 - null) ** (8 - k) * math.exp(log_evidence([(k, 8 - k, 0.1, 0.9)]))
        for k in range(9)
    )
    assert mean == pytest.approx(1.0)
    assert log_evidence([(30, 30, 0.5, 0.5)], 0.5) < log_evidence([(30, 30, 0.5, 0.5)])
    assert log_evidence([(50, 0, 1.0, 0.0)]) == pytest.approx(0.0)  # nobody to compare with


def test_every_guardrail_says_what_it_counts() -> None:
    assert set(BAD_EVENTS) == set(GUARDRAILS)


def test_alpha_is_split() -> None:
    one, _ = canary(["error_rate"])
    five, _ = canary(FIVE)
    assert guardrail_limit(one) == pytest.approx(math.log(100))
    assert guardrail_limit(five) == pytest.approx(math.log(500))
