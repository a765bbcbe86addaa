"""What is told of one request's engine: its phases as they lie in the gateway's time, and replicas that were asked in vain."""

from typing import Any

from penstock.core.exchange import Exchange

_WHY = {
    "failed": "failed",
    "hedge": "another one was quicker",
    "broken": "broke off, another one went on",
    "unconvincing": "did not convince",
}


def engine_told(exchange: Exchange) -> list[dict[str, Any]]:
    """The engine's phases, each with begin, end and length in milliseconds since the request's first byte; none if the engine did not tell."""
    return [_stretch(one.begin, one.end) | {"name": one.name} for one in exchange.engine_placed()]


def tries_told(exchange: Exchange) -> list[dict[str, Any]]:
    """Replicas that were asked in vain, and when, likewise."""
    return [
        _stretch(one.begin, one.end)
        | {"how": one.how, "pool": one.pool, "replica": one.replica, "error": one.error}
        | {"why": _WHY.get(one.how, one.how)}
        for one in exchange.tries
    ]


def _stretch(begin: int, end: int) -> dict[str, Any]:
    return {"begin_ms": begin / 1e6, "end_ms": end / 1e6, "ms": max(0, end - begin) / 1e6}
