"""Bandits: regret, coverage after adaptive allocation, and false calls while watched, by the code that control runs."""

import math

import numpy as np

from bench.checks import Check, Measured
from penstock.experiments.adaptive import one_look
from penstock.experiments.bandit_run import allocate, allocated_difference, is_due, weighted_of
from penstock.experiments.bandit_verdict import judge_bandit
from penstock.experiments.comparisons import MIN_PLANNED
from penstock.experiments.counted import Statistics
from penstock.experiments.design import Design, parse_design
from penstock.experiments.sequences import radius
from penstock.experiments.statistics import Moments

LAI_ROBBINS = 44.7  # the slope of ten arms, one of .5 and nine of .4: the sum of gap / KL(.4, .5)
BATCH = 100


def bandit(count: int, planned: int, **bandit: object) -> Design:
    """A design with `count` arms a0 (the control), a1 ..."""
    return parse_design(
        {
            "strategy": "bandit",
            "route": "r",
            "unit": "request",
            "arms": [{"name": f"a{number}", "pool": f"p{number}"} for number in range(count)],
            "control": "a0",
            "primary": {"metric": "success", "minimum_effect": 0.02},
            "plan": {"units": planned, "step_s": 0, "step_units": BATCH},
            "bandit": bandit,
        }
    )


class Played:
    """One bandit played to `total` units of Bernoulli arms; `regret` by units, at the ends of its epochs."""

    def __init__(self, design: Design, rates: tuple[float, ...], total: int, seed: int, *, watch: bool = False) -> None:
        self.design, self.statistics = design, Statistics(moments={}, shares={})
        self.regret: list[tuple[int, float]] = []
        self.called = self.missed = False
        draw = np.random.default_rng(seed)
        arms = [arm.name for arm in design.arms]
        shares = design.shares()
        seen, lost, epoch = 0, 0.0, 0
        while seen < total:
            epoch += 1
            self.statistics.shares[epoch] = shares
            while seen < total:
                counts = draw.multinomial(min(BATCH, total - seen), [shares[arm] for arm in arms])
                for arm, count, rate in zip(arms, counts, rates, strict=True):
                    good = int(draw.binomial(count, rate))
                    self._add(epoch, arm, int(count), good)
                    lost += int(count) * (max(rates) - rate)
                seen += int(counts.sum())
                if is_due(design, self.statistics, epoch=epoch, lasted_s=1.0):
                    break
            self.regret.append((seen, lost))
            if watch:
                self._look(rates, epoch)
            shares = allocate(design, self.statistics).shares

    def _add(self, epoch: int, arm: str, count: int, good: int) -> None:
        for name, top in (("success", good), ("conversion", 0)):
            place = (epoch, arm, name)
            before = self.statistics.moments.get(place, Moments())
            self.statistics.moments[place] = before.merged(Moments(count, top, count, top, count, top))

    def _look(self, rates: tuple[float, ...], now: float) -> None:
        design = self.design
        self.called |= judge_bandit(design, self.statistics, now).state in {"better", "worse"}
        planned = max(MIN_PLANNED, design.planned().always_valid * len(rates))
        for index, arm in enumerate(design.treatments, 1):
            found = allocated_difference(design, self.statistics, design.primary_metric, arm)
            if found is not None:
                reach = radius(found.variance, found.units, planned, design.plan.alpha / (len(rates) - 1))
                self.missed |= abs(found.estimate - (rates[index] - rates[0])) > reach

    def covered(self, rates: tuple[float, ...]) -> list[bool]:
        """Of each arm's difference from the control: whether the interval for one look holds the truth."""
        weighted = weighted_of(self.design, self.statistics, self.design.primary_metric)
        found = []
        for index, arm in enumerate(self.design.treatments, 1):
            ends = one_look(weighted, arm, "a0", 0.05, proportion=True)
            found.append(ends is not None and ends[0] <= rates[index] - rates[0] <= ends[1])
        return found


def regret(seed: int, part: float) -> Measured:
    """Ten arms: the mean regret at the end, against 1.5 times Lai and Robbins' line; and its slope from 10,000 units on."""
    total, middle = (100_000, 10_000) if part >= 1 else (6_000, 1_000)
    rates = (0.5, *(0.4,) * 9)
    ends, middles = [], []
    for run in range(max(2, round(20 * part))):
        played = Played(bandit(10, total // 10), rates, total, seed + run)
        units, lost = zip(*played.regret, strict=True)
        ends.append(played.regret[-1][1])
        middles.append(float(np.interp(middle, units, lost)))
    end, slope = float(np.mean(ends)), float(np.mean(ends) - np.mean(middles)) / math.log(total / middle)
    limit = 1.5 * LAI_ROBBINS
    met = end <= limit * math.log(total) and (slope <= limit or part < 1)
    return Measured(f"{end:.0f} at {total:,} units (limit {limit * math.log(total):.0f}), slope {slope:.1f}", met)


def coverage(seed: int, part: float) -> Measured:
    """Of differences from the control after adaptive allocation, three kinds of arms."""
    worst = 1.0
    told = []
    for rates in ((0.5, 0.5, 0.5), (0.4, 0.5, 0.6), (0.1, 0.12, 0.1, 0.1)):
        held = []
        for run in range(max(10, round(700 * part))):
            held += Played(bandit(len(rates), 2000), rates, 6000, seed + run).covered(rates)
        share = sum(held) / len(held)
        worst = min(worst, share)
        told.append(f"{100 * share:.1f}")
    return Measured(f"{', '.join(told)} %", worst >= (0.94 if part >= 1 else 0.8))


def watched(seed: int, part: float) -> Measured:
    """The same version in all arms, judged after each epoch: calls of an arm as better or worse, and intervals that ever missed."""
    runs = max(3, round(400 * part))
    called = missed = 0
    for run in range(runs):
        played = Played(bandit(3, 2000), (0.5, 0.5, 0.5), 6000, seed + run, watch=True)
        called += played.called
        missed += played.missed
    met = max(called, missed) / runs <= (0.055 if part >= 1 else 0.15)
    return Measured(f"{100 * called / runs:.1f} % called, {100 * missed / runs:.1f} % of sequences missed", met)


CHECKS = [
    Check("bandit: regret, ten arms", "<= 67.05 ln T, slope <= 67.05", regret, seed=1, slow=True),
    Check("bandit: coverage of 95 % intervals", ">= 94 %", coverage, seed=2, slow=True),
    Check("bandit: A/A called while watched", "<= 5.5 %", watched, seed=3, slow=True),
]
