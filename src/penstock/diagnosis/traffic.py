"""The requests of the last minutes, equal ones together."""

from collections.abc import Iterable
from typing import Any

from penstock.core.exchange import Exchange
from penstock.diagnosis.seen import Group, Traffic

WINDOW_S = 300.0
_FIELDS = ("tenant", "key", "model", "route", "pool", "replica", "outcome", "error")


def traffic_of(exchanges: Iterable[Exchange], now: float, window_s: float = WINDOW_S) -> Traffic:
    """What of `exchanges` began within `window_s` seconds before `now`, grouped."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    for one in exchanges:
        if one.at < now - window_s:
            continue
        found = sums.setdefault(tuple(getattr(one, name) for name in _FIELDS), [0, 0, 0])
        found[0] += 1
        found[1] += one.usage.prompt + one.usage.completion
        found[2] += one.cost_nanousd
    groups = tuple(
        Group(**dict(zip(_FIELDS, key, strict=True)), count=count, tokens=tokens, cost_nanousd=cost)
        for key, (count, tokens, cost) in sorted(sums.items())
    )
    return Traffic(window_s=window_s, groups=groups)
