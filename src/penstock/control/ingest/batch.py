"""One batch of journal records on its way into the tables, inside the caller's transaction.

Everything that the batch touches is read first, then the records are folded in order, then everything that changed is written.
The batch is one object, because each step works on what the one before has read: that makes the file longer than most.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.evaluators.entry import EVALUATORS
from penstock.control.experiments.store import (
    OpenExperiment,
    UnitKey,
    chunks,
    load_past,
    load_units,
    newest_units,
    open_experiments,
    save_units,
)
from penstock.control.ingest.counts import add_counts
from penstock.control.ingest.engagement import EngagementBatch, Place
from penstock.control.ingest.evaluators import EvaluatorUsage
from penstock.control.ingest.usage import UsageBatch
from penstock.control.watch.drift_store import DriftBatch, GroupKey, group_key, key_of
from penstock.core.exchange import Exchange, Observation, Record
from penstock.experiments.fold import UnitRecord
from penstock.experiments.metrics import is_number_refused, told
from penstock.experiments.pairs import treatment_of, vote_of_judge, vote_on
from penstock.journal.format import decode_payload
from penstock.store.schema_experiments import exchanges, experiments, observations

_BITS = {"success": 1, "rating": 2, "reports": 4, "conversion": 8, "preference": 16}
_SLICE = 256  # records folded before others get a turn

_encode = msgspec.msgpack.Encoder().encode


class Known(msgspec.Struct, kw_only=True):
    """What attribution needs of an exchange."""

    tenant: str
    experiment: str
    epoch: int
    unit: str
    group: GroupKey
    place: Place = ("", "")
    told: int = 0
    stored: bool = True  # it has a row already


class IngestBatch:
    """The records of one ingest, in order; `first` is the ingest sequence of the first of them."""

    def __init__(self, records: Sequence[tuple[Record, bytes]], first: int, now: float) -> None:
        self._records = records
        self._first = first
        self._now = now
        self._known: dict[str, Known] = {}
        self._seen: set[tuple[str, str]] = set()
        self._waiting: dict[str, list[Observation]] = {}
        self._experiments: dict[str, OpenExperiment] = {}
        self._units: dict[UnitKey, UnitRecord] = {}
        self._stored_units: frozenset[UnitKey] = frozenset()
        self._changed_units: set[UnitKey] = set()
        self._by_user: dict[str, list[UnitKey]] = {}
        self._bad_before: dict[
            tuple[str, str], dict[str, int]
        ] = {}  # by experiment and unit: its bad events of all epochs
        self._past: dict[tuple[str, str], int] = {}  # by experiment and unit: the covariate
        self._usage = UsageBatch()
        self._evaluators = EvaluatorUsage()
        self._shown: dict[str, Exchange] = {}  # with two answers, by id
        self._drift = DriftBatch()
        self._engagement = EngagementBatch(first)
        self._exchange_rows: list[dict[str, Any]] = []
        self._observation_rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._told: dict[str, int] = {}
        self._settled: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    async def run(self, connection: AsyncConnection) -> set[str]:
        """Take the batch in; the names of the experiments that it changed."""
        await self._read(connection)
        for index, (record, raw) in enumerate(self._records):
            if isinstance(record, Exchange):
                self._exchange(record, raw, self._first + index)
            elif isinstance(record, Observation):
                self._observation(record, raw, self._first + index)
            if index % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        await self._write(connection)
        return {name for name, one in self._experiments.items() if one.folding.touched}

    def tripped(self) -> set[str]:
        """The experiments of which a guardrail tripped in this batch."""
        return {name for name, one in self._experiments.items() if one.folding.has_tripped()}

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _read(self, connection: AsyncConnection) -> None:
        ids = {record.id for record, _ in self._records if isinstance(record, Exchange)}
        said = [record for record, _ in self._records if isinstance(record, Observation)]
        for piece in chunks(ids | {one.request for one in said if one.request and "\0" not in one.request}):
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
                self._known[row.id] = Known(
                    tenant=row.tenant,
                    experiment=row.experiment,
                    epoch=row.epoch,
                    unit=row.unit,
                    group=group_key(version=row.version, route=row.route, experiment=row.experiment, arm=row.arm),
                    place=(row.route, row.version),
                    told=row.told,
                )
        for piece in chunks({_clean(one.id) for one in said}):
            found = await connection.execute(
                select(observations.c.tenant, observations.c.id).where(observations.c.id.in_(piece))
            )
            self._seen.update((row.tenant, row.id) for row in found)
        await self._read_shown(connection, said)
        await self._read_waiting(connection, ids)
        await self._read_experiments(connection, said)
        await self._engagement.read(connection, self._records)
        groups = {key_of(record) for record, _ in self._records if isinstance(record, Exchange)}
        await self._drift.read(connection, groups | {known.group for known in self._known.values()})

    async def _read_shown(self, connection: AsyncConnection, said: list[Observation]) -> None:
        """The answers that preferences are about: whose each choice was stands in the record."""
        about = {one.request for one in said if one.kind == "preference" and one.request in self._known}
        for piece in chunks(about):
            rows = await connection.execute(select(exchanges.c.id, exchanges.c.record).where(exchanges.c.id.in_(piece)))
            for row in rows:
                record = decode_payload(row.record)
                if isinstance(record, Exchange):
                    self._shown[row.id] = record

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
                self._waiting.setdefault(row.request, []).append(msgspec.msgpack.decode(row.record, type=Observation))

    async def _read_experiments(self, connection: AsyncConnection, said: list[Observation]) -> None:
        names: set[str] = set()
        keys: set[UnitKey] = set()
        for record, _ in self._records:
            if isinstance(record, Exchange) and record.experiment and record.epoch > 0:
                names.add(record.experiment)
                keys.add((record.experiment, record.epoch, unit_key(record.tenant, record.unit or record.id)))
        for known in self._known.values():
            if known.experiment and known.epoch > 0:
                names.add(known.experiment)
                keys.add((known.experiment, known.epoch, known.unit))
        users = {unit_key(one.tenant, one.user) for one in said if _is_of_user(one)}
        if users:
            counting = await connection.execute(
                select(experiments.c.name).where(experiments.c.state.in_(("running", "paused", "decided")))
            )
            names.update(row.name for row in counting)
        if not names:
            return
        self._experiments = await open_experiments(connection, names)
        self._units = await load_units(connection, [key for key in keys if key[0] in self._experiments])
        for name, one in self._experiments.items():
            if users and one.unit == "user":
                for key, record_ in (await newest_units(connection, name, users)).items():
                    self._units.setdefault(key, record_)
        self._stored_units = frozenset(self._units)
        await self._read_earlier(connection, keys)
        for name, one in self._experiments.items():
            if one.folding.design.covariate is not None:
                new = {key[2] for key in keys if key[0] == name and key not in self._units}
                for unit, value in (await load_past(connection, name, new)).items():
                    self._past[name, unit] = value
        for key in sorted(self._units):
            self._remember_user(key)

    async def _read_earlier(self, connection: AsyncConnection, keys: set[UnitKey]) -> None:
        """Of units that a ramp meets again: the bad events that have been counted of them."""
        for name, one in self._experiments.items():
            met = {key[2] for key in keys if key[0] == name and key[1] > 1 and key not in self._units}
            if met and one.unit != "request":
                for key, record in (await newest_units(connection, name, met)).items():
                    self._bad_before[name, key[2]] = record.bad

    def _remember_user(self, key: UnitKey) -> None:
        """Keep `key` as the place of its user's events: the newest epoch of each experiment."""
        before = self._by_user.get(key[2], [])
        if not any(one[0] == key[0] and one[1] > key[1] for one in before):
            self._by_user[key[2]] = [*(one for one in before if one[0] != key[0]), key]

    # -- folding -----------------------------------------------------------------------------------------------------

    def _count(self, reason: str) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + 1

    def _exchange(self, exchange: Exchange, raw: bytes, sequence: int) -> None:
        if exchange.id in self._known:
            self._count("repeated_exchange")
            return
        unit = unit_key(exchange.tenant, exchange.unit or exchange.id)
        known = Known(
            tenant=exchange.tenant,
            experiment=exchange.experiment,
            epoch=exchange.epoch,
            unit=unit,
            group=key_of(exchange),
            place=(exchange.route, exchange.version),
            stored=False,
        )
        self._known[exchange.id] = known
        self._tally(exchange, sequence)
        if exchange.pair is not None:
            self._shown[exchange.id] = exchange
        if exchange.experiment and exchange.epoch > 0 and not self._expose(exchange, unit, sequence):
            known.epoch = 0
        for observation in self._waiting.pop(exchange.id, ()):
            self._settled[observation.tenant, _clean(observation.id)] = self._attribute(observation, known, sequence)
        self._keep_exchange(exchange, known, raw, sequence)

    def _tally(self, exchange: Exchange, sequence: int) -> None:
        """Count it for what is no experiment: usage, engagement, drift."""
        self._usage.add(exchange)
        if exchange.tenant == EVALUATORS:
            self._evaluators.add(exchange)
        elif exchange.pair is None or not exchange.pair.of:  # nobody has seen a copy
            self._engagement.add(exchange)
            self._drift.add(exchange, sequence)

    def _keep_exchange(self, exchange: Exchange, known: Known, raw: bytes, sequence: int) -> None:
        self._exchange_rows.append(
            {
                "id": exchange.id,
                "sequence": sequence,
                "at": exchange.at,
                "tenant": exchange.tenant,
                "route": exchange.route,
                "experiment": exchange.experiment,
                "arm": exchange.arm,
                "epoch": known.epoch,
                "unit": known.unit,
                "version": exchange.version,
                "digest": exchange.digest,
                "status": exchange.status,
                "outcome": exchange.outcome,
                "told": 0,  # set when all of the batch has been heard
                "record": raw,
            }
        )

    def _expose(self, exchange: Exchange, unit: str, sequence: int) -> bool:
        """Count the exchange for its arm; False if it is not to be counted."""
        one = self._experiments.get(exchange.experiment)
        arm, paired = treatment_of(exchange), exchange.pair is not None
        if one is None or not one.folding.knows(exchange.epoch, arm) or one.folding.design.paired is not paired:
            self._count("unknown_experiment")
            return False
        key = (exchange.experiment, exchange.epoch, unit)
        record = self._units.get(key)
        if record is None:
            bad = self._bad_earlier(exchange.experiment, unit)
            record = self._units[key] = UnitRecord(
                arm=arm,
                first_at=exchange.at,
                values={},
                bad=dict(bad),
                past=self._past.get((exchange.experiment, unit), 0),
            )
            self._remember_user(key)
        elif record.arm != arm:
            self._count("arm_changed")
            return False
        self._changed_units.add(key)
        if paired:
            one.folding.paired(record, exchange, sequence)
            return True
        one.folding.exposed(record, exchange, sequence)
        return True

    def _bad_earlier(self, experiment: str, unit: str) -> dict[str, int]:
        """The bad events of a unit in the newest epoch that it was in, of this batch or of those before."""
        for key in self._by_user.get(unit, ()):
            if key[0] == experiment:
                return self._units[key].bad
        return self._bad_before.get((experiment, unit), {})

    def _observation(self, observation: Observation, raw: bytes, sequence: int) -> None:
        name = (observation.tenant, _clean(observation.id))
        if name in self._seen:
            self._count("repeated_observation")
            return
        self._seen.add(name)
        if is_number_refused(observation):
            self._count("refused_number")
        known = self._known.get(observation.request) if observation.request else None
        if not observation.request:
            state = "kept"
            if _is_of_user(observation):
                self._tally_of_user(observation)
                state = self._attribute_to_user(observation, sequence)
        elif known is None:
            state = "pending"
            self._waiting.setdefault(observation.request, []).append(observation)
        else:
            state = self._attribute(observation, known, sequence)
        self._keep_observation(observation, state, raw, sequence)

    def _tally_of_user(self, observation: Observation) -> None:
        self._engagement.told_of_user(observation)

    def _keep_observation(self, observation: Observation, state: str, raw: bytes, sequence: int) -> None:
        name = (observation.tenant, _clean(observation.id))
        self._observation_rows[name] = {
            "tenant": name[0],
            "id": name[1],
            "sequence": sequence,
            "received": observation.received,
            "request": _clean(observation.request),
            "state": state,
            "record": raw,
        }

    def _attribute(self, observation: Observation, known: Known, sequence: int) -> str:
        if known.tenant != observation.tenant:
            self._count("foreign")
            return "foreign"
        one = self._experiments.get(known.experiment) if known.epoch > 0 else None
        key = (known.experiment, known.epoch, known.unit)
        record = self._units.get(key)
        self._tally_told(observation, known)
        for metric, numerator in told(observation):
            if known.told & _BITS[metric]:
                self._count("repeated_word")
                continue
            known.told |= _BITS[metric]
            if known.stored:
                self._told[observation.request] = known.told
            self._tally_word(observation, known, metric, numerator, sequence)
            if one is not None and record is not None and not one.folding.design.paired:
                self._changed_units.add(key)
                one.folding.told(record, known.epoch, metric, numerator, sequence)
        if observation.kind == "preference" and one is not None and record is not None:
            self._prefer(one, key, record, observation, known, sequence)
        if observation.kind == "event" and one is not None and record is not None:
            if one.folding.design.paired:
                self._judge(one, key, record, observation, sequence)
            else:
                self._happened(one, key, record, observation, sequence)
        return "attributed"

    def _tally_told(self, observation: Observation, known: Known) -> None:
        """Count what was told of a request for what is no experiment."""
        if not observation.evaluator:
            words = {metric for metric, _ in told(observation)}
            converted = "conversion" in words and not known.told & _BITS["conversion"]
            self._engagement.told(observation, known.place, converted=converted)

    def _tally_word(self, observation: Observation, known: Known, metric: str, numerator: int, sequence: int) -> None:
        self._drift.told(known.group, metric, numerator, observation.received, sequence)

    def _judge(
        self, one: OpenExperiment, key: UnitKey, record: UnitRecord, observation: Observation, sequence: int
    ) -> None:
        """Count which of two answers an evaluator's judge preferred."""
        vote = vote_of_judge(one.folding.design, observation)
        if vote:
            self._changed_units.add(key)
            one.folding.voted(record, key[1], "judged", vote, sequence)

    def _prefer(
        self,
        one: OpenExperiment,
        key: UnitKey,
        record: UnitRecord,
        observation: Observation,
        known: Known,
        sequence: int,
    ) -> None:
        """Count which of two answers was preferred: once a request, and of a unit the first that is no tie."""
        exchange = self._shown.get(observation.request)
        vote = vote_on(exchange, observation) if exchange is not None else ""
        if not vote:
            self._count("unknown_choice")
        elif known.told & _BITS["preference"]:
            self._count("repeated_word")
        else:
            known.told |= _BITS["preference"]
            if known.stored:
                self._told[observation.request] = known.told
            self._changed_units.add(key)
            one.folding.voted(record, known.epoch, "preference", vote, sequence)

    def _happened(
        self, one: OpenExperiment, key: UnitKey, record: UnitRecord, observation: Observation, sequence: int
    ) -> None:
        """Count an event for the metrics of one experiment that are read from it."""
        if one.folding.hears(observation):
            self._changed_units.add(key)
            reason = one.folding.happened(record, key[1], observation, sequence)
            if reason:
                self._count(reason)

    def _attribute_to_user(self, observation: Observation, sequence: int) -> str:
        """What is told of a user, not of a request: it counts in each experiment that this user has been part of."""
        found = False
        for key in self._by_user.get(unit_key(observation.tenant, observation.user), ()):
            one, record = self._experiments.get(key[0]), self._units[key]
            if one is None or one.unit != "user" or observation.at < record.first_at:
                continue
            if observation.name == "conversion":
                found = True
                self._changed_units.add(key)
                one.folding.told(record, key[1], "conversion", 1, sequence)
            if one.folding.hears(observation):
                found = True
                self._happened(one, key, record, observation, sequence)
        return "attributed" if found else "kept"

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _write(self, connection: AsyncConnection) -> None:
        for name in [name for name in self._settled if name in self._observation_rows]:
            self._observation_rows[name]["state"] = self._settled.pop(name)
        for row in self._exchange_rows:
            row["told"] = self._known[row["id"]].told
        if self._exchange_rows:
            await connection.execute(insert(exchanges), self._exchange_rows)
        if self._observation_rows:
            await connection.execute(insert(observations), list(self._observation_rows.values()))
        if self._told:
            await connection.execute(
                update(exchanges).where(exchanges.c.id == bindparam("p_id")).values(told=bindparam("p_told")),
                [{"p_id": name, "p_told": bits} for name, bits in self._told.items()],
            )
        if self._settled:
            await connection.execute(
                update(observations)
                .where(observations.c.tenant == bindparam("p_tenant"), observations.c.id == bindparam("p_id"))
                .values(state=bindparam("p_state")),
                [{"p_tenant": t, "p_id": i, "p_state": state} for (t, i), state in self._settled.items()],
            )
        await self._usage.save(connection)
        await self._evaluators.save(connection)
        await self._drift.save(connection)
        await self._engagement.save(connection)
        changed = {key: self._units[key] for key in self._changed_units}
        await save_units(connection, changed, self._stored_units)
        for experiment in sorted(self._experiments):
            await self._experiments[experiment].save(connection)
        await add_counts(connection, self._counts)


def unit_key(tenant: str, unit: str) -> str:
    """How a unit is named in tables: units of two tenants are never one."""
    return f"{tenant}/{unit}"


def _clean(text: str) -> str:
    """`text` without the character that PostgreSQL does not take; ids of ours never have it."""
    return text.replace("\0", "\ufffd")


def _is_of_user(observation: Observation) -> bool:
    return observation.kind == "event" and bool(observation.user) and not observation.request
