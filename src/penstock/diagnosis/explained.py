"""Which cause explains which: what follows from another fault is named after it."""

from collections.abc import Callable, Sequence

import msgspec

from penstock.diagnosis.cause import Cause
from penstock.diagnosis.seen import Seen

_SHARE = 0.5  # of its cause's likelihood that a consequence keeps at most

Link = Callable[[Cause, Cause, Seen], bool]


def _same(cause: Cause, consequence: Cause, _seen: Seen) -> bool:
    return cause.subject == consequence.subject


def _any(_cause: Cause, _consequence: Cause, _seen: Seen) -> bool:
    return True


def _is_control(cause: Cause, _consequence: Cause, _seen: Seen) -> bool:
    return cause.subject == "control"


def _to_control(cause: Cause, consequence: Cause, _seen: Seen) -> bool:
    return cause.subject == "control" and consequence.subject == "control"


def _own_ledger(_cause: Cause, _consequence: Cause, seen: Seen) -> bool:
    return seen.machine is not None and not seen.machine.shared_ledger


def _engine_of(cause: Cause, consequence: Cause, seen: Seen) -> bool:
    """The process behind a replica that is left out, or behind a pool."""
    if seen.machine is None or not cause.subject.startswith("engine-"):
        return False
    url = next((one.url for one in seen.machine.programs if one.name == cause.subject), "")
    pools = {one.pool for one in seen.machine.replicas if url and one.url == url}
    return consequence.subject in pools or consequence.subject.partition(" ")[0] in pools


def _engine_condition(cause: Cause, consequence: Cause, _seen: Seen) -> bool:
    return cause.subject.startswith("engine-") and cause.subject.removeprefix("engine-") in consequence.subject


def _worker(cause: Cause, consequence: Cause, _seen: Seen) -> bool:
    return consequence.subject.partition(" ")[0] == cause.subject


def _pool_of(cause: Cause, consequence: Cause, _seen: Seen) -> bool:
    return cause.subject.partition(" ")[0] == consequence.subject.partition(" ")[0]


def _holds_journal(cause: Cause, _consequence: Cause, seen: Seen) -> bool:
    """The reader has not passed on most of what the journals hold."""
    if seen.machine is None:
        return False
    stored = sum(one.bytes for one in seen.machine.journals)
    lag = next((one.lag_bytes for one in seen.machine.readers if one.name == cause.subject), 0)
    return 2 * lag >= stored > 0


_DEAD = ("process_halted", "process_restarting", "process_silent")

# (causes, consequences, whether this one explains that one)
LINKS: tuple[tuple[tuple[str, ...], tuple[str, ...], Link], ...] = (
    (("process_halted",), ("process_silent", "process_restarting", "process_not_ready"), _same),
    (("process_restarting",), ("process_silent", "process_not_ready"), _same),
    (("process_halted",), ("supervisor_down",), _same),
    (("supervisor_down",), ("ledger_down",), _own_ledger),
    (_DEAD, ("control_unheard", "worker_stale", "condition_failing"), _is_control),
    (_DEAD, ("sink_failing", "sink_lagging"), _to_control),
    (_DEAD, ("pool_unreachable", "replica_unreachable", "replica_failing", "pool_overloaded", "pool_errors"), _engine_of),
    (_DEAD, ("condition_failing",), _engine_condition),
    (_DEAD, ("worker_stale",), _worker),
    (("shipper_silent",), ("sink_lagging",), _any),
    (("pool_unreachable", "replica_unreachable", "replica_failing", "replica_slow"), ("pool_errors",), _pool_of),
    (("pool_unreachable", "replica_unreachable", "replica_slow"), ("pool_overloaded", "replica_failing"), _pool_of),
    (("snapshot_fault", "snapshot_refused"), ("worker_stale", "pool_errors"), _any),
    (("disk_full",), ("journal_bound", "journal_losing", "sink_failing", "process_restarting", "condition_failing"), _any),
    (("sink_failing",), ("journal_bound", "journal_losing", "sink_lagging"), _holds_journal),
    (("journal_bound",), ("journal_losing",), _same),
    (("certificate_expired",), ("control_unheard",), _any),
)  # fmt: skip


def explained(causes: Sequence[Cause], seen: Seen) -> list[Cause]:
    """`causes`, those that another one explains less likely than it, and saying so; the most likely first."""
    found = []
    for one in causes:
        above = max((c for c in causes if c is not one and _explains(c, one, seen)), key=_weight, default=None)
        found.append(one if above is None else _after(one, above))
    return sorted(found, key=lambda c: (-c.likelihood, c.name, c.subject))


def _after(one: Cause, above: Cause) -> Cause:
    likelihood = min(one.likelihood, above.likelihood) * _SHARE
    return msgspec.structs.replace(one, likelihood=likelihood, follows=f"{above.name} {above.subject}")


def _weight(cause: Cause) -> tuple[float, str, str]:
    return cause.likelihood, cause.name, cause.subject


def _explains(cause: Cause, consequence: Cause, seen: Seen) -> bool:
    return any(
        cause.name in causes and consequence.name in consequences and link(cause, consequence, seen)
        for causes, consequences, link in LINKS
    )
