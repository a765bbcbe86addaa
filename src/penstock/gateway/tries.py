"""Notes of replicas that were asked in vain: of failed attempts, of a hedge's loser, of what broke a stream off, of a cascade's first model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from penstock.core.exchange import Try

if TYPE_CHECKING:
    from penstock.gateway.call import Call


def lost(call: Call, how: str, error: str = "", *, begin: int = 0, replica: str = "") -> Try:
    """What became of the replica that was asked last, or of `replica`, asked at `begin`; it is over now."""
    return Try(
        how,
        call.leg.entry.pool.name if call.leg is not None else "",
        replica or call.replica,
        begin or call.dispatched_ns,
        time.monotonic_ns() - call.started_ns,
        error,
    )


def note(call: Call, how: str, error: str = "") -> None:
    """Keeps that for the record, if a replica was asked since the call was admitted."""
    if call.dispatched_ns and call.dispatched_ns >= call.admitted_ns:
        call.tries = (*call.tries, lost(call, how, error))


def broken(call: Call, error: str) -> Try:
    """What became of the replica that breaks a stream off now; one that had gone on with it had it since the one before broke off."""
    begin = next((one.end for one in reversed(call.tries) if one.how == "broken"), 0)
    return lost(call, "broken", error, begin=begin)
