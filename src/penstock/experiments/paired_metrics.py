"""What is measured where two arms answer the same request: some of the built-in metrics, and what only a pair has."""

from penstock.experiments.metrics import METRICS, Metric

_SHARED = ("latency", "time_to_first_token", "completion_tokens", "cost", "error_rate", "completion", "refusal")
VOTES = ("preference", "judged")  # decided by votes, one a unit

PAIRED: dict[str, Metric] = {name: METRICS[name] for name in _SHARED} | {
    one.name: one
    for one in (
        Metric(
            name="preference",
            type="proportion",
            direction="up",
            unit="share",
            family="quality",
            definition="Of the units that preferred one of two answers shown together, the share that preferred the treatment's; the first "
            "preference of a unit counts, ties do not.",
        ),
        Metric(
            name="judged",
            type="proportion",
            direction="up",
            unit="share",
            family="quality",
            definition="Of the units for which a judge model preferred one of two answers in both orders, the share for which it was the "
            "treatment's; the first judgement of a unit counts, ties do not.",
        ),
        Metric(
            name="similarity",
            type="mean",
            direction="up",
            unit="share",
            family="quality",
            definition="How many words and pairs of neighbouring words the two answers have in common (Dice's coefficient), from 0 to 1.",
            scale=1e-6,
        ),
        Metric(
            name="same_answer",
            type="proportion",
            direction="up",
            unit="share",
            family="quality",
            definition="Of the pairs whose two answers came to their end, the share that has the same words.",
        ),
    )
}
