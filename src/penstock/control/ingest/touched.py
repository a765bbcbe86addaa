"""What the tables know of what a batch of journal records touches, read before anything is folded."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.experiments.store import (
    OpenExperiment,
    UnitKey,
    chunks,
    load_past,
    load_units,
    newest_units,
    open_experiments,
)
from penstock.control.ingest.engagement import Place
from penstock.control.watch.drift_store import GroupKey, group_key
from penstock.core.exchange import Exchange, Observation, Record
from penstock.experiments.fold import UnitRecord
from penstock.journal.format import decode_payload
from penstock.store.schema_experiments import exchanges, experiments, observations


class Known(msgspec.Struct, kw_only=True):
    """What attribution needs of an exchange.

    Attributes:
        epoch: 0 where it does not count for its experiment.
        unit: as tables name it, TENANT/UNIT.
        told: bits of what has been told of it already, each thing once.
        stored: whether it has a row already.
    """

    tenant: str
    experiment: str
    epoch: int
    unit: str
    group: GroupKey
    place: Place = ("", "")
    told: int = 0
    stored: bool = True


class Touched:
    """What is known of a batch's exchanges, observations, experiments and units; folding adds to it, and changes it."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}  # exchanges, by id
        self.heard: set[tuple[str, str]] = set()  # observations that have come: tenant and id
        self.waiting: dict[str, list[Observation]] = {}  # told of exchanges that have not come, by their id
        self.shown: dict[str, Exchange] = {}  # exchanges with two answers, by id
        self.experiments: dict[str, OpenExperiment] = {}
        self.units: dict[UnitKey, UnitRecord] = {}
        self.stored_units: frozenset[UnitKey] = frozenset()
        self.past: dict[tuple[str, str], int] = {}  # by experiment and unit: the covariate
        self._bad_before: dict[tuple[str, str], dict[str, int]] = {}  # by experiment and unit: bad events of all epochs
        self._by_user: dict[str, list[UnitKey]] = {}

    async def read(self, connection: AsyncConnection, records: Sequence[tuple[Record, bytes]]) -> None:
        """Read all that `records` touch."""
        ids = {record.id for record, _ in records if isinstance(record, Exchange)}
        said = [record for record, _ in records if isinstance(record, Observation)]
        await self._read_known(
            connection, ids | {one.request for one in said if one.request and "\0" not in one.request}
        )
        for piece in chunks({clean(one.id) for one in said}):
            found = await connection.execute(
                select(observations.c.tenant, observations.c.id).where(observations.c.id.in_(piece))
            )
            self.heard.update((row.tenant, row.id) for row in found)
        await self._read_shown(connection, said)
        await self._read_waiting(connection, ids)
        await self._read_experiments(
            connection, [record for record, _ in records if isinstance(record, Exchange)], said
        )

    async def _read_known(self, connection: AsyncConnection, ids: set[str]) -> None:
        for piece in chunks(ids):
            rows = await connection.execute(
                select(
                    exchanges.c.id,
                    exchanges.c.tenant,
                    exchanges.c.experiment,
                    exchanges.c.epoch,
                    exchanges.c.unit,
                    exchanges.c.told,
                    exchanges.c.version,
                    exchanges.c.route,
                    exchanges.c.arm,
                ).where(exchanges.c.id.in_(piece))
            )
            for row in rows:
                self.known[row.id] = Known(
                    tenant=row.tenant,
                    experiment=row.experiment,
                    epoch=row.epoch,
                    unit=row.unit,
                    group=group_key(version=row.version, route=row.route, experiment=row.experiment, arm=row.arm),
                    place=(row.route, row.version),
                    told=row.told,
                )

    async def _read_shown(self, connection: AsyncConnection, said: list[Observation]) -> None:
        """The answers that preferences are about: whose each choice was stands in the record."""
        about = {one.request for one in said if one.kind == "preference" and one.request in self.known}
        for piece in chunks(about):
            rows = await connection.execute(select(exchanges.c.id, exchanges.c.record).where(exchanges.c.id.in_(piece)))
            for row in rows:
                record = decode_payload(row.record)
                if isinstance(record, Exchange):
                    self.shown[row.id] = record

    async def _read_waiting(self, connection: AsyncConnection, ids: set[str]) -> None:
        waits = select(observations.c.id).where(observations.c.state == "pending").limit(1)
        if not ids or (await connection.execute(waits)).first() is None:
            return
        for piece in chunks(ids):
            rows = await connection.execute(
                select(observations.c.request, observations.c.record)
                .where(observations.c.request.in_(piece), observations.c.state == "pending")
                .order_by(observations.c.sequence)
            )
            for row in rows:
                self.waiting.setdefault(row.request, []).append(msgspec.msgpack.decode(row.record, type=Observation))

    async def _read_experiments(
        self, connection: AsyncConnection, asked: list[Exchange], said: list[Observation]
    ) -> None:
        keys: set[UnitKey] = {
            (one.experiment, one.epoch, unit_key(one.tenant, one.unit or one.id))
            for one in asked
            if one.experiment and one.epoch > 0
        }
        keys.update(
            (one.experiment, one.epoch, one.unit) for one in self.known.values() if one.experiment and one.epoch > 0
        )
        names = {key[0] for key in keys}
        users = {unit_key(one.tenant, one.user) for one in said if is_of_user(one)}
        if users:
            counting = await connection.execute(
                select(experiments.c.name).where(experiments.c.state.in_(("running", "paused", "decided")))
            )
            names.update(row.name for row in counting)
        if not names:
            return
        self.experiments = await open_experiments(connection, names)
        self.units = await load_units(connection, [key for key in keys if key[0] in self.experiments])
        for name, one in self.experiments.items():
            if users and one.unit == "user":
                for key, record in (await newest_units(connection, name, users)).items():
                    self.units.setdefault(key, record)
        self.stored_units = frozenset(self.units)
        await self._read_earlier(connection, keys)
        for name, one in self.experiments.items():
            if one.folding.design.covariate is not None:
                new = {key[2] for key in keys if key[0] == name and key not in self.units}
                for unit, value in (await load_past(connection, name, new)).items():
                    self.past[name, unit] = value
        for key in sorted(self.units):
            self.remember_user(key)

    async def _read_earlier(self, connection: AsyncConnection, keys: set[UnitKey]) -> None:
        """Of units that a ramp meets again: the bad events that have been counted of them."""
        for name, one in self.experiments.items():
            met = {key[2] for key in keys if key[0] == name and key[1] > 1 and key not in self.units}
            if met and one.unit != "request":
                for key, record in (await newest_units(connection, name, met)).items():
                    self._bad_before[name, key[2]] = record.bad

    def remember_user(self, key: UnitKey) -> None:
        """Keep `key` as the place of its user's events: the newest epoch of each experiment."""
        before = self._by_user.get(key[2], [])
        if not any(one[0] == key[0] and one[1] > key[1] for one in before):
            self._by_user[key[2]] = [*(one for one in before if one[0] != key[0]), key]

    def places_of(self, user: str) -> Sequence[UnitKey]:
        """Where the events of `user` (TENANT/USER) count: in each experiment the newest epoch that it was in."""
        return self._by_user.get(user, ())

    def bad_earlier(self, experiment: str, unit: str) -> dict[str, int]:
        """The bad events of a unit in the newest epoch that it was in, of this batch or of those before."""
        for key in self._by_user.get(unit, ()):
            if key[0] == experiment:
                return self.units[key].bad
        return self._bad_before.get((experiment, unit), {})


def unit_key(tenant: str, unit: str) -> str:
    """How a unit is named in tables: units of two tenants are never one."""
    return f"{tenant}/{unit}"


def clean(text: str) -> str:
    """`text` without the character that PostgreSQL does not take; ids of ours never have it."""
    return text.replace("\0", "\ufffd")


def is_of_user(observation: Observation) -> bool:
    """Whether it is an event that was told of a user, not of a request."""
    return observation.kind == "event" and bool(observation.user) and not observation.request
