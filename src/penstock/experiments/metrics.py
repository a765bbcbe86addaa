"""The built-in metrics: what each is, in words, and how it is read from exchanges and observations.

A metric's value is the sum of whole-numbered numerators over the sum of denominators, times its scale; a quantile's is read from a
histogram of nanoseconds. What cannot be: NaN, infinite or absurdly large numbers are left out and counted; negative times and token
counts are taken for 0.
"""

import math
from typing import Literal

import msgspec

from penstock.core.errors import BadRequest
from penstock.core.exchange import FROM_CACHE, Exchange, Observation, Quality
from penstock.experiments.statistics import FAILED, bucket_of

LARGEST = 1e6  # ratings and values beyond it are no measurements
MICRO = 1_000_000  # numerators of ratings and values are millionths

Family = Literal["performance", "quality", "business", "safety"]

FAILURES = frozenset({"error", "truncated", "crashed"})


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. `scale` turns numerator over denominator into `unit`; `quantile` is set for quantiles alone.

    `event` names the `POST /v1/events` that it is read from, if it is: its denominator then counts all units (`per` unit), or the events.
    """

    name: str
    type: Literal["mean", "proportion", "ratio", "quantile"]
    direction: Literal["up", "down"]  # which way is better
    unit: str
    family: Family
    definition: str
    scale: float = 1.0
    quantile: float | None = None
    event: str = ""
    evaluator: str = ""  # by whose scores it is read instead
    per: Literal["request", "unit", "event"] = "request"
    after_s: float = 0.0  # after the unit's first request: earlier events do not count
    within_s: float | None = None  # nor do later ones
    finished: bool = (
        False  # only answers that came to their end have an honest value: it decides beside `completion` alone
    )


METRICS: dict[str, Metric] = {
    one.name: one
    for one in (
        Metric(
            name="success",
            type="proportion",
            direction="up",
            unit="share",
            family="quality",
            definition="Of the requests with feedback that says whether the task succeeded, the share that did. "
            "The first such feedback on a request counts.",
        ),
        Metric(
            name="rating",
            type="mean",
            direction="up",
            unit="points",
            family="quality",
            definition="The mean rating of the requests that were rated. The first rating of a request counts.",
            scale=1 / MICRO,
        ),
        Metric(
            name="conversion",
            type="proportion",
            direction="up",
            unit="share",
            family="business",
            definition="Of all units in the experiment, the share with at least one `conversion` event after their first request.",
            event="conversion",
            per="unit",
        ),
        Metric(
            name="retention",
            type="proportion",
            direction="up",
            unit="share",
            family="business",
            definition="Of all units in the experiment, the share that came back: with at least one `retention` event.",
            event="retention",
            per="unit",
        ),
        Metric(
            name="session_length",
            type="mean",
            direction="up",
            unit="s",
            family="business",
            definition="The mean of the values of `session_length` events, told in seconds when a session is over.",
            scale=1 / MICRO,
            event="session_length",
            per="event",
        ),
        Metric(
            name="relevance",
            type="mean",
            direction="up",
            unit="points",
            family="quality",
            definition="The mean of the values of `relevance` events: how well answers fit their questions, as an evaluator scores them.",
            scale=1 / MICRO,
            event="relevance",
            per="event",
        ),
        Metric(
            name="accuracy",
            type="proportion",
            direction="up",
            unit="share",
            family="safety",
            definition="Of the answers that were checked against a reference, the share that was right: `accuracy` events "
            "with a value of at least one half.",
            event="accuracy",
            per="event",
        ),
        Metric(
            name="toxicity",
            type="mean",
            direction="down",
            unit="points",
            family="safety",
            definition="The mean of the values of `toxicity` events, as a classifier scores answers from 0 to 1.",
            scale=1 / MICRO,
            event="toxicity",
            per="event",
        ),
        Metric(
            name="judge_score",
            type="mean",
            direction="up",
            unit="share",
            family="quality",
            definition="The mean grade of the answers that a judge model graded by a rubric: 0 the worst grade, 1 the best (`judge_score` events).",
            scale=1 / MICRO,
            event="judge_score",
            per="event",
        ),
        Metric(
            name="win_rate",
            type="mean",
            direction="up",
            unit="share",
            family="quality",
            definition="Of the answers that a judge compared with another arm's answer to the same question, the share that it preferred in "
            "both orders; ties count one half (`win_rate` events, each comparison for one of its two answers).",
            scale=1 / MICRO,
            event="win_rate",
            per="event",
        ),
        Metric(
            name="error_rate",
            type="proportion",
            direction="down",
            unit="share",
            family="performance",
            definition="Of all requests that were not refused, the share that ended in an error, broke off or crashed; "
            "timeouts are errors.",
        ),
        Metric(
            name="completion",
            type="proportion",
            direction="up",
            unit="share",
            family="performance",
            definition="Of all requests that were not refused, the share whose answer came to its end: neither failed nor left by its user.",
        ),
        Metric(
            name="refusal",
            type="proportion",
            direction="down",
            unit="share",
            family="safety",
            definition="Of all requests, the share that was refused or stopped by a content rule.",
        ),
        Metric(
            name="findings",
            type="proportion",
            direction="down",
            unit="share",
            family="safety",
            definition="Of all requests, the share in whose answer a content rule found something.",
        ),
        Metric(
            name="latency",
            type="mean",
            direction="down",
            unit="s",
            family="performance",
            definition="The mean time from a request's first byte to its answer's last; of requests that failed or were left by their users, "
            "the time until then, which is the least that it can have been. Answers from the cache are left out.",
            scale=1e-9,
            finished=True,
        ),
        Metric(
            name="latency_p95",
            type="quantile",
            direction="down",
            unit="s",
            family="performance",
            definition="The time from a request's first byte to its answer's last that 95 % of requests stay under; "
            "failures count as slower than any, answers from the cache are left out.",
            scale=1e-9,
            quantile=0.95,
        ),
        Metric(
            name="time_to_first_token",
            type="mean",
            direction="down",
            unit="s",
            family="performance",
            definition="The mean time from a request's first byte to the first of its streamed answer; where none came, the time until the "
            "request failed or was left, which is the least that it can have been. Answers from the cache are left out.",
            scale=1e-9,
            finished=True,
        ),
        Metric(
            name="time_to_first_token_p95",
            type="quantile",
            direction="down",
            unit="s",
            family="performance",
            definition="The time to the first byte of the answer that 95 % of streams stay under; streams that failed count as "
            "slower than any, those left before it with the time until then.",
            scale=1e-9,
            quantile=0.95,
        ),
        Metric(
            name="tokens_per_second",
            type="ratio",
            direction="up",
            unit="tokens/s",
            family="performance",
            definition="Tokens of all answers over the sum of the times from a replica's getting a request to its last byte; those that broke "
            "off count with the tokens that came and the time until they ended.",
            scale=1e9,
        ),
        Metric(
            name="replica_seconds",
            type="mean",
            direction="down",
            unit="s",
            family="performance",
            definition="The mean time that a replica (with its CPUs or its GPU) was held by a request, from its dispatch to its answer's last "
            "byte; 0 for answers from the cache.",
            scale=1e-9,
        ),
        Metric(
            name="completion_tokens",
            type="mean",
            direction="down",
            unit="tokens",
            family="performance",
            definition="The mean number of tokens in an answer that came to its end.",
            finished=True,
        ),
        Metric(
            name="surprisal",
            type="ratio",
            direction="down",
            unit="nats/token",
            family="quality",
            definition="How unsure the model was of its own words: the negative log-probabilities of all tokens of the answers that the engine "
            "looked at, over their number. Its exponential is the perplexity.",
            scale=1 / MICRO,
            finished=True,
        ),
        Metric(
            name="repetition",
            type="ratio",
            direction="down",
            unit="share",
            family="quality",
            definition="Of all runs of three tokens in the answers that the engine looked at, the share that had occurred in the same answer before.",
            finished=True,
        ),
        Metric(
            name="refused_answers",
            type="proportion",
            direction="down",
            unit="share",
            family="quality",
            definition="Of the answers that the engine looked at, the share that declines to answer, by the patterns declared for the model.",
            finished=True,
        ),
        Metric(
            name="cost",
            type="mean",
            direction="down",
            unit="USD",
            family="business",
            definition="The mean cost of a request, failed ones included.",
            scale=1e-9,
        ),
        Metric(
            name="reports",
            type="proportion",
            direction="down",
            unit="share",
            family="safety",
            definition="Of all requests, the share that somebody reported.",
        ),
    )
}

GUARDRAILS = (
    "error_rate",
    "completion",
    "latency",
    "latency_p95",
    "time_to_first_token",
    "time_to_first_token_p95",
    "refusal",
    "findings",
    "success",
    "rating",
    "reports",
)


def metric(name: str, param: str) -> Metric:
    """The metric called `name`.

    Raises:
        BadRequest: if there is none; `param` is where it stood.
    """
    found = METRICS.get(name)
    if found is None:
        raise BadRequest(f"{name!r} is no metric: use one of {', '.join(METRICS)}.", param=param)
    return found


def has_finding(exchange: Exchange) -> bool:
    """Whether a content rule found something in the answer."""
    return bool(exchange.findings) and any(finding.where == "output" for finding in exchange.findings)


def latency_ns(exchange: Exchange) -> int:
    """From the request's first byte to the last of the answer; of one that did not come to its end, to when it was given up."""
    phases = exchange.phases
    last = phases.last_token
    return max(0, last if last and exchange.outcome == "ok" else max(last, phases.done))


def first_token_ns(exchange: Exchange) -> int:
    """From a stream's first byte to the first of its answer; where none came, to when it was given up; 0: that is not known."""
    first = exchange.phases.first_token
    if first > 0 or exchange.outcome == "ok":
        return max(0, first)
    return latency_ns(exchange)


def measures(exchange: Exchange) -> list[tuple[str, int, int]]:
    """What an exchange adds: (metric, numerator, denominator).

    A request that failed or was left counts with the time that it took until then: an arm that times out on its slow answers must not look
    quick. What only a finished answer has (`Metric.finished`) cannot decide without the share of finished ones.
    """
    outcome = exchange.outcome
    refused = outcome == "refused"
    found = [
        ("cost", max(0, exchange.cost_nanousd), 1),
        ("reports", 0, 1),
        ("refusal", int(refused or exchange.finish == "content_filter"), 1),
        ("findings", int(has_finding(exchange)), 1),
    ]
    if refused:
        return found
    dispatched = exchange.phases.dispatched
    cached = exchange.cache in FROM_CACHE
    finished = outcome == "ok"
    took = latency_ns(exchange)
    held = max(0, took - dispatched) if dispatched > 0 and not cached else 0
    tokens = max(0, exchange.usage.completion)
    found += (
        ("error_rate", int(outcome in FAILURES), 1),
        ("completion", int(finished), 1),
        ("replica_seconds", held, 1),
    )
    if finished:
        found.append(("completion_tokens", tokens, 1))
    if cached:
        return found
    if took or finished:  # of a worker that was killed nobody knows when
        found.append(("latency", took, 1))
    first = first_token_ns(exchange) if exchange.stream else 0
    if first:
        found.append(("time_to_first_token", first, 1))
    if held and (tokens or (not finished and exchange.operation != "embeddings")):
        found.append(("tokens_per_second", tokens, held))
    if finished and exchange.quality is not None:
        found += looked_at(exchange.quality)
    return found


def looked_at(quality: Quality) -> list[tuple[str, int, int]]:
    """What an answer adds that the engine looked at; numbers that are none are left out."""
    found = [("refused_answers", int(quality.refused), 1)]
    if quality.scored > 0 and math.isfinite(quality.logprob):
        found.append(("surprisal", round(-quality.logprob * MICRO), quality.scored))
    if quality.trigrams > 0:
        found.append(("repetition", max(0, quality.repeated), quality.trigrams))
    return found


def timings(exchange: Exchange) -> list[tuple[str, int]]:
    """What an exchange adds to histograms: (metric, bucket)."""
    if exchange.outcome == "refused" or exchange.cache in FROM_CACHE:
        return []
    failed = exchange.outcome in FAILURES
    found = [("latency_p95", FAILED if failed else bucket_of(latency_ns(exchange)))]
    if exchange.stream:
        first = first_token_ns(exchange)
        if failed:
            found.append(("time_to_first_token_p95", FAILED))
        elif first:
            found.append(("time_to_first_token_p95", bucket_of(first)))
    return found


def number(value: float | None) -> int | None:
    """`value` in millionths; None for what is no measurement."""
    if value is None or not math.isfinite(value) or abs(value) > LARGEST:
        return None
    return round(value * MICRO)


def told(observation: Observation) -> list[tuple[str, int]]:
    """What an observation says of its request: (metric, numerator); nothing for what measures nothing."""
    found: list[tuple[str, int]] = []
    if observation.kind == "feedback":
        if observation.success is not None:
            found.append(("success", int(observation.success)))
        rating = number(observation.rating)
        if rating is not None:
            found.append(("rating", rating))
    elif observation.kind == "report":
        found.append(("reports", 1))
    elif observation.kind == "event" and observation.name == "conversion":
        found.append(("conversion", 1))
    return found


def is_number_refused(observation: Observation) -> bool:
    """Whether the observation carries a number that is none: NaN, infinite, or beyond a million."""
    return any(
        value is not None and (not math.isfinite(value) or abs(value) > LARGEST)
        for value in (observation.rating, observation.value)
    )
