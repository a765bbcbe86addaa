"""Guardrails: evidence that a treatment does harm, updated with every completed request and valid at every one of them.

Of all bad events (an error, an answer slower than the control's 95th percentile, a report ...) that happen in the control or in one
treatment, a harmless treatment has no more than its share of the traffic. So each bad event is a coin whose chance of "treatment" is at
most that share, whatever the rate of bad events does over the day: control and treatment are compared at the same moment. The evidence
is a mixture of likelihood ratios over how many times worse the treatment might be; by Ville's inequality its chance of ever passing
1 / alpha is at most alpha for a harmless treatment (Ramdas, Grünwald, Vovk and Shafer 2023, "Game-theoretic statistics and safe
anytime-valid inference", Statistical Science 38, section 3; the conditioning is that of Fisher's exact test).

What the coin rests on is the assignment alone, which is random by unit. So of each unit only the first bad event counts, over the whole
life of the experiment: its later ones fall on the same side and are no new coins. (With two of each, five users in a hundred who fail half of
their requests undo 1.3 % of harmless canaries where 1 % was promised; with all, 7.4 %.) Where the unit is the request, every bad event is a
coin of its own, however much one client's requests resemble each other.
"""

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec

from penstock.core.exchange import FROM_CACHE, Exchange
from penstock.experiments.metrics import FAILURES, first_token_ns, has_finding, latency_ns

WORSE = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)  # how many times more bad events, mixed with equal weights
PER_UNIT = 1  # bad events of a unit that count
FINISHED = frozenset({"ok", "refused"})  # outcomes of requests that got what they were to get
FIRST_THRESHOLD = 64  # control requests before there is a threshold; renewed at every doubling
SLOW = {
    "latency": "latency_p95",
    "latency_p95": "latency_p95",
    "time_to_first_token": "time_to_first_token_p95",
    "time_to_first_token_p95": "time_to_first_token_p95",
}  # guardrails on times, and the histogram of the control that gives their threshold


BAD_EVENTS = {  # what each guardrail counts, in words
    "error_rate": "errors, timeouts, broken streams, crashes and answers that another pool had to give",
    "completion": "errors, timeouts, broken streams, crashes, and answers that their users did not wait for",
    "latency": "failures, and answers slower than 95 % of the control's",
    "latency_p95": "failures, and answers slower than 95 % of the control's",
    "time_to_first_token": "failed streams, and those whose first byte came later than 95 % of the control's",
    "time_to_first_token_p95": "failed streams, and those whose first byte came later than 95 % of the control's",
    "refusal": "requests that were refused or stopped by a content rule",
    "findings": "answers in which a content rule found something",
    "success": "feedback that the task did not succeed",
    "rating": "ratings below 0",
    "reports": "reports",
}


class Guardrail(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one guardrail has seen. `bad` counts bad events by epoch and arm; `evidence` is the highest log e-value by treatment."""

    metric: str
    threshold: int = 0  # nanoseconds; 0: none yet
    bad: dict[str, dict[str, int]] = {}
    evidence: dict[str, float] = {}
    tripped: str = ""  # the treatment that tripped it
    tripped_at: int = 0  # ingest sequence of the record that did


def log_evidence(strata: Iterable[tuple[int, int, float, float]], margin: float = 0.0) -> float:
    """The logarithm of the e-value against "the treatment's rate of bad events is at most (1 + margin) times the control's".

    Args:
        strata: by epoch: bad events in the treatment, in the control, the treatment's share of traffic, the control's.
        margin: how much more is accepted.
    """
    terms = [0.0] * len(WORSE)
    for treatment, control, treatment_share, control_share in strata:
        if treatment_share <= 0 or control_share <= 0:
            continue  # nobody to compare with
        for index, (here, there) in enumerate(_steps(treatment_share / control_share * (1 + margin))):
            terms[index] += treatment * here + control * there
    highest = max(terms)
    return highest + math.log(sum(math.exp(term - highest) for term in terms) / len(terms))


@lru_cache(maxsize=256)
def _steps(odds: float) -> tuple[tuple[float, float], ...]:
    """For each of `WORSE`, what a bad event in the treatment and one in the control add; `odds` are those of the null."""
    null = odds / (1 + odds)
    found = []
    for worse in WORSE:
        there = odds * worse / (1 + odds * worse)
        found.append((math.log(there / null), math.log((1 - there) / (1 - null))))
    return tuple(found)


def with_bad_event(
    guardrail: Guardrail,
    *,
    epoch: int,
    arm: str,
    control: str,
    shares: Mapping[int, Mapping[str, float]],
    margin: float,
    limit: float,
    sequence: int,
) -> Guardrail:
    """The guardrail after one more bad event.

    Args:
        guardrail: before it.
        epoch: of the request.
        arm: of the request.
        control: the arm to compare with.
        shares: by epoch and arm.
        margin: of `log_evidence`.
        limit: the log e-value that trips it.
        sequence: of the record, for the account of what tripped it.
    """
    bad = {number: dict(arms) for number, arms in guardrail.bad.items()}
    here = bad.setdefault(str(epoch), {})
    here[arm] = here.get(arm, 0) + 1
    evidence = dict(guardrail.evidence)
    tripped, tripped_at = guardrail.tripped, guardrail.tripped_at
    treatments = [arm] if arm != control else [name for name in shares.get(epoch, {}) if name != control]
    for treatment in treatments:
        now = log_evidence(
            (
                (
                    counts.get(treatment, 0),
                    counts.get(control, 0),
                    shares.get(int(number), {}).get(treatment, 0.0),
                    shares.get(int(number), {}).get(control, 0.0),
                )
                for number, counts in bad.items()
            ),
            margin,
        )
        evidence[treatment] = max(now, evidence.get(treatment, now))
        if now >= limit and not tripped:
            tripped, tripped_at = treatment, sequence
    return msgspec.structs.replace(guardrail, bad=bad, evidence=evidence, tripped=tripped, tripped_at=tripped_at)


def is_bad(metric: str, exchange: Exchange, threshold: int) -> bool:
    """Whether a finished exchange is a bad event for the guardrail on `metric`; `threshold` in nanoseconds, 0: none yet."""
    if metric == "error_rate":
        return exchange.outcome in FAILURES or exchange.fallback  # another pool had to answer
    if metric == "completion":
        return exchange.outcome not in FINISHED
    if metric == "refusal":
        return exchange.outcome == "refused" or exchange.finish == "content_filter"
    if metric == "findings":
        return has_finding(exchange)
    if metric not in SLOW or not threshold or exchange.outcome == "refused" or exchange.cache in FROM_CACHE:
        return False
    if SLOW[metric] == "latency_p95":
        return exchange.outcome in FAILURES or latency_ns(exchange) > threshold
    return exchange.stream and (exchange.outcome in FAILURES or first_token_ns(exchange) > threshold)


def is_bad_word(metric: str, numerator: int) -> bool:
    """Whether what was told of a request is a bad event: no success, a rating below 0, a report."""
    if metric == "success":
        return numerator == 0
    return numerator < 0 if metric == "rating" else metric == "reports"
