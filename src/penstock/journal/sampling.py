"""Which requests leave a trace: a share chosen by the trace's id, and all that somebody will look for.

The share is OpenTelemetry's TraceIdRatioBased sampler over the lower 64 bits of the id (opentelemetry.io/docs/specs/otel/trace/sdk), so that
every part of a trace that decides by the same rule decides alike.
"""

import msgspec

from penstock.core.exchange import Exchange

FAILED = frozenset({"error", "truncated", "crashed"})  # outcomes that are the service's own fault
_ALL = 1 << 64
_SAMPLED = frozenset("13579bdf")  # last digits of flags whose lowest bit is set


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of the requests that nobody has a special reason to look at."""

    share: float = 1.0  # between 0 and 1
    slow_s: float = 10.0  # requests that took longer are kept


def failed(exchange: Exchange) -> bool:
    """Whether the service failed; a request that was refused by the rules, or whose client left, did not."""
    return exchange.outcome in FAILED or exchange.status >= 500


def is_slow(exchange: Exchange, slow_s: float) -> bool:
    """Whether it took longer than `slow_s` seconds."""
    return exchange.phases.done > slow_s * 1e9


def is_sampled(exchange: Exchange, trace: bytes, sampling: Sampling) -> bool:
    """Whether a trace of `exchange`, whose trace's id is `trace` (16 bytes), is kept.

    Kept are those that failed, were slow, or in which a content rule found something; those whose caller says that it samples; of the others the
    share. A caller that says that it does not sample takes its request out of the share.
    """
    if failed(exchange) or exchange.findings or is_slow(exchange, sampling.slow_s):
        return True
    if exchange.trace:
        return exchange.trace[-1] in _SAMPLED
    return int.from_bytes(trace[8:]) < round(sampling.share * _ALL)
