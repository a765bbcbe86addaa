"""Drift in the tables: groups are read and written within the transaction that takes a batch in, and begun when a version goes live."""

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.core.errors import NotFound
from penstock.core.exchange import Exchange
from penstock.experiments.drift_signals import feedback_value, observed
from penstock.experiments.drift_watch import Group, Watch, Watching, accepted, kept_group, new_group
from penstock.store.schema_drift import drift_days, drift_groups

GroupKey = tuple[str, str]  # model, arm
KEPT_S = 90 * 86400.0  # what has had no request for so long is forgotten
KEPT_DAYS = 400
decode_group = msgspec.msgpack.Decoder(Group).decode
_encode = msgspec.msgpack.Encoder().encode


def group_key(*, version: str, route: str, experiment: str, arm: str) -> GroupKey:
    """What an exchange belongs to: its version, or its route where servers were adopted; and the arm of the experiment that it was in."""
    return version or route, f"{experiment}/{arm}" if experiment else ""


def key_of(exchange: Exchange) -> GroupKey:
    """What an exchange belongs to."""
    return group_key(version=exchange.version, route=exchange.route, experiment=exchange.experiment, arm=exchange.arm)


async def load_groups(
    connection: AsyncConnection, keys: Iterable[GroupKey], *, lock: bool = True
) -> dict[GroupKey, Group]:
    """The groups of these that are there; with `lock`, nobody else changes them until the transaction ends."""
    wanted = set(keys)
    models = sorted({model for model, _ in wanted})
    found: dict[GroupKey, Group] = {}
    for start in range(0, len(models), 500):
        statement = select(drift_groups.c.model, drift_groups.c.arm, drift_groups.c.record).where(
            drift_groups.c.model.in_(models[start : start + 500])
        )
        ordered = statement.order_by(
            drift_groups.c.model, drift_groups.c.arm
        )  # whoever locks several does so in one order
        rows = await connection.execute(ordered.with_for_update() if lock else ordered)
        found.update({(row.model, row.arm): decode_group(row.record) for row in rows if (row.model, row.arm) in wanted})
    return found


def watch_told(watch: Watch) -> dict[str, Any]:
    """What is to be known of a watch without reading all that it counts."""
    alarm = watch.alarm
    told: dict[str, Any] | None = None
    if alarm is not None:
        told = {name: getattr(alarm, name) for name in alarm.__struct_fields__} | {"words": alarm.words}
    return {"signal": watch.signal, "against": watch.against, "alarm": told}


async def save_group(connection: AsyncConnection, key: GroupKey, group: Group, *, known: bool) -> None:
    """Write a group."""
    values = {
        "since": group.since,
        "last_at": group.last_at,
        "alarms": [watch_told(watch) for watch in group.watches if watch.reference is not None],
        "record": _encode(group),
    }
    if known:
        await connection.execute(
            update(drift_groups).where(drift_groups.c.model == key[0], drift_groups.c.arm == key[1]).values(**values)
        )
    else:
        await connection.execute(insert(drift_groups).values(model=key[0], arm=key[1], ended_at=None, **values))


class DriftBatch:
    """Drift of one batch of records."""

    def __init__(self) -> None:
        self._known: set[GroupKey] = set()
        self._watching: dict[GroupKey, Watching] = {}

    async def read(self, connection: AsyncConnection, keys: set[GroupKey]) -> None:
        """Read the groups that the batch may touch."""
        groups = await load_groups(connection, {key for key in keys if key[0]})
        self._known = set(groups)
        self._watching = {key: Watching(group) for key, group in groups.items()}

    def add(self, exchange: Exchange, sequence: int) -> None:
        """Fold one exchange in."""
        key = key_of(exchange)
        if not key[0]:
            return
        for signal, value in observed(exchange):
            self._at(key, exchange.at).feed(signal, value, exchange.at, sequence)

    def told(self, key: GroupKey, metric: str, numerator: int, at: float, sequence: int) -> None:
        """Fold one word of feedback in."""
        found = feedback_value(metric, numerator)
        if found is not None and key[0]:
            self._at(key, at).feed(*found, at, sequence)

    def _at(self, key: GroupKey, at: float) -> Watching:
        watching = self._watching.get(key)
        if watching is None:
            watching = self._watching[key] = Watching(new_group(at))
        return watching

    async def save(self, connection: AsyncConnection) -> None:
        """Write what has changed, and the days that ended."""
        for key, watching in sorted(self._watching.items()):
            if not watching.changed:
                continue
            await save_group(connection, key, watching.kept(), known=key in self._known)
            for day in watching.days:
                place = {"model": key[0], "arm": key[1], "signal": day.signal, "day": day.day}
                await connection.execute(
                    delete(drift_days).where(*(drift_days.c[name] == value for name, value in place.items()))
                )
                await connection.execute(insert(drift_days).values(**place, **msgspec.structs.asdict(day.result)))


async def begin_group(
    connection: AsyncConnection, model: str, *, replaced: str | None, returns: bool, now: float
) -> None:
    """A version goes live: what it is compared with from now on. See `end_group` for the one that it replaces.

    Args:
        connection: of the change.
        model: NAME:LABEL of the version.
        replaced: that of the version that was live before, if it was another one.
        returns: it is rolled back to: what it was is kept, and nothing is held against the version that it replaces.
        now: Unix seconds.
    """
    names = [(model, ""), *([(replaced, "")] if replaced is not None else [])]
    groups = await load_groups(connection, names)
    own, before = groups.get((model, "")), groups.get((replaced, "")) if replaced is not None else None
    group = kept_group(own, now) if own is not None and returns else new_group(now, before)
    group.last_at = now
    await save_group(connection, (model, ""), group, known=own is not None)
    await connection.execute(
        update(drift_groups).where(drift_groups.c.model == model, drift_groups.c.arm == "").values(ended_at=None)
    )


async def end_group(connection: AsyncConnection, model: str, now: float) -> None:
    """The version `model` (NAME:LABEL) is live nowhere any more: what is known of it is kept, and is watched no longer."""
    await connection.execute(
        update(drift_groups).where(drift_groups.c.model == model, drift_groups.c.arm == "").values(ended_at=now)
    )


async def accept_group(change: Change, key: GroupKey, signal: str | None, reason: str) -> None:
    """Begin a new reference for a signal, or for all of a group.

    Raises:
        NotFound: if nothing of it is watched.
    """
    groups = await load_groups(change.connection, [key])
    if key not in groups:
        named = f"{key[0]!r} in the arm {key[1]!r}" if key[1] else repr(key[0])
        raise NotFound(f"Nothing of {named} is watched.", param="model")
    await save_group(change.connection, key, accepted(groups[key], signal), known=True)
    await change.audit("drift.accept", key[0], arm=key[1], signal=signal or "all", reason=reason)


async def forget_drift(connection: AsyncConnection, now: float) -> None:
    """Remove groups that nobody has asked for long, and comparisons of days long gone."""
    await connection.execute(delete(drift_groups).where(drift_groups.c.last_at < now - KEPT_S))
    await connection.execute(delete(drift_days).where(drift_days.c.day < int(now // 86400) - KEPT_DAYS))
