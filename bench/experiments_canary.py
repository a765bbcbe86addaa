"""Canaries: how soon the shipped guardrails undo a bad one, and how seldom a harmless one."""

import math
import random
from statistics import median

import numpy as np

from bench.checks import Check, Measured
from penstock.core.exchange import Exchange
from penstock.experiments.arms import ArmSpec
from penstock.experiments.design import Design
from penstock.experiments.fold import Folding, Statistics, UnitRecord
from penstock.experiments.guardrails import Guardrail, with_bad_event
from penstock.experiments.plan import GuardrailSpec, PlanSpec, Primary

ALPHA = 0.01
SHARE = 0.1
SHARES = {1: {"control": 1 - SHARE, "canary": SHARE}}
FIVE = {
    "error_rate": 0.01,
    "latency_p95": 0.05,
    "refusal": 0.01,
    "findings": 0.005,
    "success": 0.01,
}  # of a healthy version


class Watch:
    """One guardrail of `of`, told of bad events alone: of the others it hears nothing."""

    def __init__(self, of: int) -> None:
        self.guardrail = Guardrail(metric="error_rate")
        self._limit = math.log(of / ALPHA)
        self._seen = 0

    def bad(self, arm: str) -> bool:
        """One more; whether it has tripped."""
        self._seen += 1
        self.guardrail = with_bad_event(
            self.guardrail,
            epoch=1,
            arm=arm,
            control="control",
            shares=SHARES,
            margin=0.0,
            limit=self._limit,
            sequence=self._seen,
        )
        return bool(self.guardrail.tripped)


def _until_tripped(rng: random.Random, rates: tuple[float, float], most: int, of: int) -> int | None:
    """After how many of its requests a canary is rolled back; rates of control and canary."""
    watch, seen = Watch(of), 0
    while seen < most:
        canary = rng.random() < SHARE
        seen += canary
        if rng.random() < rates[canary] and watch.bad("canary" if canary else "control"):
            return seen
    return None


def _bad_canary(rates: tuple[float, float], most: int, of: int, wanted: float) -> Check:
    def measure(seed: int, part: float) -> Measured:
        rng = random.Random(seed)
        runs = max(20, round(1000 * part))
        found = [_until_tripped(rng, rates, most, of) for _ in range(runs)]
        within = [one for one in found if one is not None]
        share = len(within) / runs
        # A small part has its own luck: three standard errors of it.
        luck = 0.0 if part >= 1 else 3 * math.sqrt(wanted * (1 - wanted) / runs)
        middle = f"{median(within):.0f}" if within else "-"
        return Measured(f"{share * 100:.1f} % of {runs:,} runs, median {middle}", share >= wanted - luck)

    name = f"canary: errors {rates[0] * 100:g} % to {rates[1] * 100:g} %, {of} guardrail{'s' if of > 1 else ''}"
    return Check(name, f"95 % within {most} canary requests", measure, seed=41 + most + of)


def _healthy(seed: int, part: float) -> Measured:
    rng = np.random.default_rng(seed)
    runs = max(10, round(1000 * part))
    requests = 500_000 if part >= 1 else 50_000
    undone = 0
    for _ in range(runs):
        for rate in FIVE.values():
            watch = Watch(len(FIVE))
            arms = rng.random(rng.binomial(requests, rate)) < SHARE
            if any(watch.bad("canary" if canary else "control") for canary in arms):
                undone += 1
                break
    allowed = ALPHA if part >= 1 else ALPHA + 3 * math.sqrt(ALPHA / runs)
    canary = round(requests * SHARE)
    return Measured(f"{undone} of {runs:,} runs of {canary:,} canary requests", undone / runs <= allowed)


def _sticky(seed: int, part: float) -> Measured:
    """Users keep their arm, and five in a hundred of them fail half of their requests, whichever arm they have."""
    rng = np.random.default_rng(seed)
    runs, users, requests = max(20, round(1000 * part)), 2000, 20_000
    design = Design(
        strategy="canary",
        route="bot",
        arms=(ArmSpec(name="control", pool="a"), ArmSpec(name="canary", pool="b")),
        primary=Primary(metric="error_rate", minimum_effect=0.02),
        guardrails=(GuardrailSpec(metric="error_rate"),),
        plan=PlanSpec(steps=(SHARE, 1.0), guardrail_alpha=ALPHA),
    )
    undone = 0
    for _ in range(runs):
        canary = rng.random(users) < SHARE
        rate = np.where(rng.random(users) < 0.05, 0.5, 0.005)
        who = rng.integers(0, users, requests)
        folding = Folding(design, Statistics(shares=dict(SHARES)))
        units: dict[int, UnitRecord] = {}
        for number, user in enumerate(who[rng.random(requests) < rate[who]].tolist(), 1):
            arm = "canary" if canary[user] else "control"
            unit = units.setdefault(user, UnitRecord(arm=arm, first_at=0.0, values={}, bad={}))
            failed = Exchange(id=str(number), at=0.0, arm=arm, epoch=1, experiment="e", outcome="error")
            folding.exposed(unit, failed, number)
        undone += bool(folding.statistics.guardrails["error_rate"].tripped)
    allowed = ALPHA if part >= 1 else ALPHA + 3 * math.sqrt(ALPHA / runs)
    return Measured(f"{undone / runs * 100:.2f} % of {runs:,} runs", undone / runs <= allowed)


CHECKS = [
    _bad_canary((0.01, 0.10), 200, 5, 0.95),
    _bad_canary((0.01, 0.10), 150, 1, 0.95),
    _bad_canary((0.01, 0.05), 700, 5, 0.95),
    _bad_canary((0.01, 0.05), 500, 1, 0.95),
    _bad_canary((0.01, 1.0), 15, 5, 0.95),
    Check("canary: healthy, 5 guardrails", "at most 1 % of runs rolled back", _healthy, seed=47, slow=True),
    Check("canary: healthy, users who keep failing", "at most 1 % of runs rolled back", _sticky, seed=53, slow=True),
]
