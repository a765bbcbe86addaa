"""An experiment folded again from the records that are stored, in ingest order, and compared with what is stored of it, bit for bit.

What folds is what folded at first: `Attribution`, without the tables. So an unequal replay means that records are gone (retention), or
that the same records do not say the same any more.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.experiments.life import experiment_row
from penstock.control.experiments.store import OpenExperiment, ingested, load_statistics
from penstock.control.ingest.attribution import Attribution
from penstock.core.errors import Conflict
from penstock.core.exchange import Exchange, Observation, Record
from penstock.experiments.counted import Statistics
from penstock.experiments.design import Design, parse_design
from penstock.experiments.guardrails import Guardrail
from penstock.experiments.judging import judged
from penstock.experiments.verdict import Verdict
from penstock.store.schema_experiments import exchanges, experiment_epochs, experiment_past, observations
from penstock.store.sql import Database

MOST_TOLD = 20  # differences that are told
_PAGE = 2_000
Told = Exchange | Observation
_decode = msgspec.msgpack.Decoder(Record).decode


class Epoch(NamedTuple):
    """A stretch of time with the same shares; `started_at` in Unix seconds."""

    number: int
    shares: Mapping[str, float]
    contexts: Mapping[str, Mapping[str, float]] | None
    started_at: float


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict on the way: after the record with this ingest sequence."""

    sequence: int
    records: int
    verdict: Verdict


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a replay. `same_counts`: the statistics are those that are stored; `same_verdict`: so is the verdict (None: there is none)."""

    name: str
    records: int
    equal: bool
    same_counts: bool
    same_verdict: bool | None
    differences: tuple[str, ...]
    verdicts: tuple[Seen, ...]


class Replay(Attribution):
    """One experiment's records, folded in the order in which they are handed in; nothing is read or written."""

    def __init__(self, name: str, design: Design, epochs: Iterable[Epoch], *, planned: int = 0) -> None:
        super().__init__()
        self._design = design
        self._coming = sorted(epochs, reverse=True)
        self._one = OpenExperiment(name, design, design.unit, Statistics(planned=planned))
        self.touched.experiments = {name: self._one}
        self._name = name
        self.records = 0

    def covariates(self, past: Mapping[str, int]) -> None:
        """What units (TENANT/UNIT) did before the start."""
        self.touched.past = {(self._name, unit): value for unit, value in past.items()}

    def take(self, records: Iterable[tuple[Told, int]]) -> None:
        """The next records, each with its ingest sequence."""
        for record, sequence in records:
            self.records += 1
            if isinstance(record, Exchange):
                self._begin(number=record.epoch)
                self.exchange(record, b"", sequence)
            else:
                self.observation(record, b"", sequence)
        self._one.folding.settle()

    def _begin(self, *, number: int = 0, at: float = -math.inf) -> None:
        """Begin the epochs up to `number`, and those that had begun by `at`."""
        statistics = self._one.folding.statistics
        while self._coming and (self._coming[-1].number <= number or self._coming[-1].started_at <= at):
            one = self._coming.pop()
            statistics.shares[one.number] = dict(one.shares)
            if one.contexts:
                statistics.contexts[one.number] = {name: dict(shares) for name, shares in one.contexts.items()}

    def verdict(self, at: float) -> Verdict:
        """The verdict on what has been taken, at `at` (Unix seconds)."""
        return judged(self._design, self._one.folding.statistics, at)

    def statistics_at(self, at: float) -> Statistics:
        """What has been counted, with all epochs that had begun by `at`."""
        self._begin(at=at)
        return self._one.folding.statistics


async def replay(database: Database, name: str, *, verdicts: int) -> Replayed:
    """Fold the experiment `name` again, with about `verdicts` verdicts on the way, and compare with what is stored.

    Raises:
        NotFound: if there is no such experiment.
        Conflict: if it has not started.
        Unavailable: if the database cannot be read.
    """
    async with database.read() as connection:
        row = await experiment_row(connection, name)
        if row.started_at is None:
            raise Conflict(f"The experiment {name!r} has not started: there is nothing to replay.", param="name")
        stored = await load_statistics(connection, name)
        last = await ingested(connection) if row.counted_to is None else row.counted_to
        folding = await _prepared(connection, row, stored.planned)
        pages = _Pages(connection, name, last, since=row.started_at)
        step = max(1, await pages.count() // max(1, verdicts))
        seen: list[Seen] = []
        again: Verdict | None = None
        judged_to = row.judged_to if row.verdict is not None else None
        async for records in pages.all():
            for piece in _pieces(records, judged_to, step - folding.records % step, step):
                if again is None and judged_to is not None and piece[0][1] > judged_to:
                    again = await _again(folding, row)
                await asyncio.to_thread(folding.take, piece)
                if folding.records % step == 0:
                    record, sequence = piece[-1]
                    verdict = await asyncio.to_thread(folding.verdict, record.at)
                    seen.append(Seen(sequence=sequence, records=folding.records, verdict=verdict))
    if again is None and judged_to is not None:
        again = await _again(folding, row)
    differences = tuple(differing(stored, folding.statistics_at(math.inf)))
    same = None if again is None else _plain(again) == json.dumps(row.verdict, sort_keys=True)
    return Replayed(
        name=name,
        records=folding.records,
        equal=not differences and same is not False,
        same_counts=not differences,
        same_verdict=same,
        differences=differences[:MOST_TOLD],
        verdicts=tuple(seen),
    )


async def _again(folding: Replay, row: Row[Any]) -> Verdict:
    """The verdict that is stored, from what was known when it was made."""
    at = row.verdict["at"]
    folding.statistics_at(at)
    return await asyncio.to_thread(folding.verdict, at)


def _plain(verdict: Verdict) -> str:
    return json.dumps(json.loads(json.dumps(msgspec.to_builtins(verdict))), sort_keys=True)


def _pieces(
    records: list[tuple[Told, int]], until: int | None, first: int, step: int
) -> Iterator[list[tuple[Told, int]]]:
    """Cut after `first` of them, after each `step` more, and where the stored verdict was made."""
    cuts = {0, *range(first, len(records), step), len(records)}
    if until is not None:
        cuts.add(sum(sequence <= until for _, sequence in records))
    yield from (records[begin:end] for begin, end in pairwise(sorted(cuts)))


async def _prepared(connection: AsyncConnection, row: Row[Any], planned: int) -> Replay:
    found = await connection.execute(select(experiment_epochs).where(experiment_epochs.c.experiment == row.name))
    epochs = [Epoch(one.epoch, one.shares, one.contexts, one.started_at) for one in found]
    folding = Replay(row.name, parse_design(row.spec), epochs, planned=planned)
    past = experiment_past
    units = await connection.execute(select(past.c.unit, past.c.value).where(past.c.experiment == row.name))
    folding.covariates({one.unit: one.value for one in units})
    return folding


class _Pages:
    """The experiment's exchanges and all observations, merged in ingest order."""

    def __init__(self, connection: AsyncConnection, name: str, last: int, *, since: float) -> None:
        self._connection = connection
        own = select(exchanges.c.sequence, exchanges.c.record).where(
            exchanges.c.experiment == name, exchanges.c.epoch > 0, exchanges.c.sequence <= last
        )
        # What is told comes at the earliest a little before its exchange: what came before the start is of no request of it.
        said = select(observations.c.sequence, observations.c.record).where(
            observations.c.sequence <= last,
            observations.c.state != "unattributed",
            observations.c.received >= since - 3600,
        )
        self._streams = ((own, exchanges.c.sequence), (said, observations.c.sequence))

    async def count(self) -> int:
        """How many records there are."""
        total = 0
        for query, _ in self._streams:
            total += (await self._connection.execute(select(func.count()).select_from(query.subquery()))).scalar_one()
        return total

    async def all(self) -> AsyncIterator[list[tuple[Told, int]]]:
        """Lists of (record, ingest sequence)."""
        after = [-1, -1]
        held: list[list[tuple[int, bytes]]] = [[], []]
        open_ = [True, True]
        while True:
            for at, (query, column) in enumerate(self._streams):
                if open_[at] and not held[at]:
                    rows = await self._connection.execute(query.where(column > after[at]).order_by(column).limit(_PAGE))
                    held[at] = [(row.sequence, row.record) for row in rows]
                    open_[at] = len(held[at]) == _PAGE
                    after[at] = held[at][-1][0] if held[at] else after[at]
            if not any(held):
                return
            # Up to where both are known.
            until = min(
                rows[-1][0] for rows, more in zip(held, open_, strict=True) if rows and (more or not any(open_))
            )
            ready = sorted(one for rows in held for one in rows if one[0] <= until)
            held = [[one for one in rows if one[0] > until] for rows in held]
            yield await asyncio.to_thread(_decoded, ready)


def _decoded(rows: list[tuple[int, bytes]]) -> list[tuple[Told, int]]:
    decoded = ((_decode(raw), sequence) for sequence, raw in rows)
    return [(record, sequence) for record, sequence in decoded if isinstance(record, Told)]


def differing(stored: Statistics, replayed: Statistics) -> Iterator[str]:
    """What is not the same in both, in words; a guardrail that has seen nothing is none."""
    for field in Statistics.__struct_fields__:
        one, other = getattr(stored, field), getattr(replayed, field)
        if not isinstance(one, dict):
            if one != other:
                yield f"{field}: stored {one}, replayed {other}"
            continue
        for key in sorted(one.keys() | other.keys(), key=str):
            here, there = one.get(key), other.get(key)
            if isinstance(here or there, Guardrail):
                here, there = here or Guardrail(metric=key), there or Guardrail(metric=key)
            if here != there:
                where = "/".join(map(str, key)) if isinstance(key, tuple) else key
                yield f"{field} {where}: stored {here}, replayed {there}"
