"""Each strategy judged and moved in its own way."""

from penstock.experiments.bandit_verdict import bandit_move, judge_bandit
from penstock.experiments.counted import Statistics
from penstock.experiments.design import Design
from penstock.experiments.pair_verdict import judge_pairs, pair_move
from penstock.experiments.ramp import Move, Standing, next_move
from penstock.experiments.verdict import Verdict, judge


def judged(design: Design, statistics: Statistics, now: float) -> Verdict:
    """What `statistics` say about `design` at `now` (Unix seconds)."""
    if design.strategy == "bandit":
        return judge_bandit(design, statistics, now)
    return judge_pairs(design, statistics, now) if design.paired else judge(design, statistics, now)


def moved(design: Design, statistics: Statistics, verdict: Verdict, standing: Standing, now: float) -> Move:
    """What to do, given a verdict on what runs."""
    if design.paired:
        return pair_move(design, statistics, verdict)
    move = bandit_move if design.strategy == "bandit" else next_move
    return move(design, statistics, verdict, standing, now)
