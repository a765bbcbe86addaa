"""One batch of journal records on its way into the tables, inside the caller's transaction.

Everything that the batch touches is read first, then the records are folded in order, then everything that changed is written.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, insert, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.evaluators.entry import EVALUATORS
from penstock.control.experiments.store import save_units
from penstock.control.ingest.attribution import BITS, Attribution
from penstock.control.ingest.counts import add_counts
from penstock.control.ingest.engagement import EngagementBatch
from penstock.control.ingest.evaluators import EvaluatorUsage
from penstock.control.ingest.touched import Known, clean
from penstock.control.ingest.usage import UsageBatch
from penstock.control.watch.drift_store import DriftBatch, key_of
from penstock.core.exchange import Exchange, Observation, Record
from penstock.experiments.metrics import told
from penstock.store.schema_experiments import exchanges, observations

_SLICE = 256  # records folded before others get a turn


class IngestBatch(Attribution):
    """The records of one ingest, in order, each with its payload; `first` is the ingest sequence of the first of them."""

    def __init__(self, records: Sequence[tuple[Record, bytes]], first: int) -> None:
        super().__init__()
        self._records = records
        self._first = first
        self._usage = UsageBatch()
        self._evaluators = EvaluatorUsage()
        self._drift = DriftBatch()
        self._engagement = EngagementBatch(first)
        self._exchange_rows: list[dict[str, Any]] = []
        self._observation_rows: dict[tuple[str, str], dict[str, Any]] = {}

    async def run(self, connection: AsyncConnection) -> set[str]:
        """Take the batch in; the names of the experiments that it changed."""
        await self._read(connection)
        for index, (record, raw) in enumerate(self._records):
            if isinstance(record, Exchange):
                self.exchange(record, raw, self._first + index)
            elif isinstance(record, Observation):
                self.observation(record, raw, self._first + index)
            if index % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        await self._write(connection)
        return {name for name, one in self.touched.experiments.items() if one.folding.touched}

    def tripped(self) -> set[str]:
        """The experiments of which a guardrail tripped in this batch."""
        return {name for name, one in self.touched.experiments.items() if one.folding.has_tripped()}

    async def _read(self, connection: AsyncConnection) -> None:
        await self.touched.read(connection, self._records)
        await self._engagement.read(connection, self._records)
        groups = {key_of(record) for record, _ in self._records if isinstance(record, Exchange)}
        await self._drift.read(connection, groups | {known.group for known in self.touched.known.values()})

    # -- what is done beside experiments -----------------------------------------------------------------------------

    def tally(self, exchange: Exchange, sequence: int) -> None:
        """Count it for usage, engagement, drift."""
        self._usage.add(exchange)
        if exchange.tenant == EVALUATORS:
            self._evaluators.add(exchange)
        elif exchange.pair is None or not exchange.pair.of:  # nobody has seen a copy
            self._engagement.add(exchange)
            self._drift.add(exchange, sequence)

    def tally_of_user(self, observation: Observation) -> None:
        """Count what was told of a user."""
        self._engagement.told_of_user(observation)

    def tally_told(self, observation: Observation, known: Known) -> None:
        """Count what was told of a request, by people or programs that people use."""
        if not observation.evaluator:
            words = {metric for metric, _ in told(observation)}
            converted = "conversion" in words and not known.told & BITS["conversion"]
            self._engagement.told(observation, known.place, converted=converted)

    def tally_word(self, observation: Observation, known: Known, metric: str, numerator: int, sequence: int) -> None:
        """Count a word of feedback for drift."""
        self._drift.told(known.group, metric, numerator, observation.received, sequence)

    def keep_exchange(self, exchange: Exchange, known: Known, raw: bytes, sequence: int) -> None:
        """The row of an exchange; what was told of it is set when all of the batch has been heard."""
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
                "told": 0,
                "record": raw,
            }
        )

    def keep_observation(self, observation: Observation, state: str, raw: bytes, sequence: int) -> None:
        """The row of an observation."""
        name = (observation.tenant, clean(observation.id))
        self._observation_rows[name] = {
            "tenant": name[0],
            "id": name[1],
            "sequence": sequence,
            "received": observation.received,
            "request": clean(observation.request),
            "state": state,
            "record": raw,
        }

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _write(self, connection: AsyncConnection) -> None:
        await self._write_records(connection)
        await self._usage.save(connection)
        await self._evaluators.save(connection)
        await self._drift.save(connection)
        await self._engagement.save(connection)
        touched = self.touched
        await save_units(connection, {key: touched.units[key] for key in self.changed_units}, touched.stored_units)
        for experiment in sorted(touched.experiments):
            await touched.experiments[experiment].save(connection)
        await add_counts(connection, self.counts)

    async def _write_records(self, connection: AsyncConnection) -> None:
        for name in [name for name in self.settled if name in self._observation_rows]:
            self._observation_rows[name]["state"] = self.settled.pop(name)
        for row in self._exchange_rows:
            row["told"] = self.touched.known[row["id"]].told
        if self._exchange_rows:
            await connection.execute(insert(exchanges), self._exchange_rows)
        if self._observation_rows:
            await connection.execute(insert(observations), list(self._observation_rows.values()))
        if self.told_of:
            await connection.execute(
                update(exchanges).where(exchanges.c.id == bindparam("p_id")).values(told=bindparam("p_told")),
                [{"p_id": name, "p_told": bits} for name, bits in self.told_of.items()],
            )
        if self.settled:
            await connection.execute(
                update(observations)
                .where(observations.c.tenant == bindparam("p_tenant"), observations.c.id == bindparam("p_id"))
                .values(state=bindparam("p_state")),
                [{"p_tenant": t, "p_id": i, "p_state": state} for (t, i), state in self.settled.items()],
            )
