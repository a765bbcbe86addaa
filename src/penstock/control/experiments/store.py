"""Reading and writing what is counted of experiments."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.experiments.counted import Cell, Layer, Look, Place, Statistics, UnitRecord
from penstock.experiments.design import Design, parse_design
from penstock.experiments.fold import Folding
from penstock.experiments.guardrails import Guardrail
from penstock.experiments.statistics import Moments
from penstock.store.schema import sequences
from penstock.store.schema_experiments import (
    experiment_epochs,
    experiment_guardrails,
    experiment_layers,
    experiment_looks,
    experiment_past,
    experiment_statistics,
    experiment_units,
    experiments,
)

CHUNK = 500  # values in one IN (...): below what any SQLite takes
UnitKey = tuple[str, int, str]  # experiment, epoch, TENANT/UNIT

_unit_decoder = msgspec.msgpack.Decoder(UnitRecord)
_unit_encoder = msgspec.msgpack.Encoder()


def chunks(values: Collection[str]) -> Iterator[Sequence[str]]:
    """`values` in pieces that fit into one statement."""
    listed = sorted(values)
    for start in range(0, len(listed), CHUNK):
        yield listed[start : start + CHUNK]


async def ingested(connection: AsyncConnection) -> int:
    """The ingest sequence of the newest record that was taken in; 0: none was."""
    found = await connection.execute(select(sequences.c.value).where(sequences.c.name == "ingest"))
    return found.scalar_one_or_none() or 0


async def load_statistics(connection: AsyncConnection, name: str) -> Statistics:
    """All that is counted of the experiment `name`."""
    found = await connection.execute(select(experiments.c.planned).where(experiments.c.name == name))
    statistics = Statistics(planned=found.scalar_one_or_none() or 0)
    for row in await connection.execute(select(experiment_epochs).where(experiment_epochs.c.experiment == name)):
        statistics.shares[row.epoch] = dict(row.shares)
        if row.contexts:
            statistics.contexts[row.epoch] = {name: dict(shares) for name, shares in row.contexts.items()}
    for row in await connection.execute(
        select(experiment_statistics).where(experiment_statistics.c.experiment == name)
    ):
        place = (row.epoch, row.arm, row.metric)
        if row.moments is not None:
            statistics.moments[place] = msgspec.json.decode(row.moments, type=Moments)
        if row.histogram is not None:
            statistics.histograms[place] = msgspec.json.decode(row.histogram, type=dict[int, int])
    for row in await connection.execute(
        select(experiment_guardrails).where(experiment_guardrails.c.experiment == name)
    ):
        statistics.guardrails[row.metric] = msgspec.json.decode(row.record, type=Guardrail)
    for row in await connection.execute(select(experiment_layers).where(experiment_layers.c.experiment == name)):
        cell = (row.epoch, row.stratum, row.arm, row.metric)
        statistics.layers[cell] = msgspec.json.decode(row.sums, type=Layer)
    for row in await connection.execute(select(experiment_looks).where(experiment_looks.c.experiment == name)):
        statistics.looks[row.number] = msgspec.json.decode(row.record, type=Look)
    return statistics


class OpenExperiment:
    """An experiment whose statistics are being written in the current transaction."""

    def __init__(self, name: str, design: Design, unit: str, statistics: Statistics) -> None:
        self.name = name
        self.unit = unit
        self._places: set[Place] = {*statistics.moments, *statistics.histograms}
        self._cells: set[Cell] = set(statistics.layers)
        self._guardrails = set(statistics.guardrails)
        self.folding = Folding(design, statistics, in_batches=True)

    async def save(self, connection: AsyncConnection) -> None:
        """Write what has changed since it was opened."""
        self.folding.settle()
        statistics = self.folding.statistics
        new: list[dict[str, Any]] = []
        known: list[dict[str, Any]] = []
        for place in sorted(self.folding.touched | self.folding.timed):
            epoch, arm, metric = place
            moments = statistics.moments.get(place)
            histogram = statistics.histograms.get(place)
            row = {
                "p_experiment": self.name,
                "p_epoch": epoch,
                "p_arm": arm,
                "p_metric": metric,
                "moments": None if moments is None else msgspec.json.encode(moments).decode(),
                "histogram": None if histogram is None else msgspec.json.encode(histogram).decode(),
            }
            (known if place in self._places else new).append(row)
        if known:
            table = experiment_statistics
            await connection.execute(
                update(table)
                .where(
                    table.c.experiment == bindparam("p_experiment"),
                    table.c.epoch == bindparam("p_epoch"),
                    table.c.arm == bindparam("p_arm"),
                    table.c.metric == bindparam("p_metric"),
                )
                .values(moments=bindparam("moments"), histogram=bindparam("histogram")),
                known,
            )
        if new:
            await connection.execute(
                insert(experiment_statistics), [{k.removeprefix("p_"): v for k, v in row.items()} for row in new]
            )
        await self._save_guardrails(connection)
        await self._save_layers(connection)

    async def _save_layers(self, connection: AsyncConnection) -> None:
        statistics, table = self.folding.statistics, experiment_layers
        rows = {
            cell: {
                "p_experiment": self.name,
                "p_epoch": cell[0],
                "p_stratum": cell[1],
                "p_arm": cell[2],
                "p_metric": cell[3],
                "sums": msgspec.json.encode(statistics.layers[cell]).decode(),
            }
            for cell in sorted(self.folding.layered)
        }
        known = [row for cell, row in rows.items() if cell in self._cells]
        new = [row for cell, row in rows.items() if cell not in self._cells]
        if known:
            columns = (table.c.experiment, table.c.epoch, table.c.stratum, table.c.arm, table.c.metric)
            await connection.execute(
                update(table)
                .where(*(column == bindparam(f"p_{column.name}") for column in columns))
                .values(sums=bindparam("sums")),
                known,
            )
        if new:
            await connection.execute(insert(table), [{k.removeprefix("p_"): v for k, v in row.items()} for row in new])
        looks = [
            {"experiment": self.name, "number": n, "record": msgspec.json.encode(statistics.looks[n]).decode()}
            for n in sorted(self.folding.looked)
        ]
        if looks:
            await connection.execute(insert(experiment_looks), looks)

    async def _save_guardrails(self, connection: AsyncConnection) -> None:
        for metric in sorted(self.folding.guarded):
            guardrail = self.folding.statistics.guardrails[metric]
            values = {"record": msgspec.json.encode(guardrail).decode(), "tripped": bool(guardrail.tripped)}
            table = experiment_guardrails
            if metric in self._guardrails:
                await connection.execute(
                    update(table).where(table.c.experiment == self.name, table.c.metric == metric).values(**values)
                )
            else:
                await connection.execute(insert(table).values(experiment=self.name, metric=metric, **values))


async def open_experiments(connection: AsyncConnection, names: Collection[str]) -> dict[str, OpenExperiment]:
    """The experiments of `names` that still count: neither drafts nor archived."""
    found: dict[str, OpenExperiment] = {}
    for piece in chunks(names):
        rows = await connection.execute(
            select(experiments.c.name, experiments.c.spec).where(
                experiments.c.name.in_(piece), experiments.c.state.in_(("running", "paused", "decided"))
            )
        )
        for row in rows.all():
            design = parse_design(row.spec)
            found[row.name] = OpenExperiment(row.name, design, design.unit, await load_statistics(connection, row.name))
    return found


async def load_units(connection: AsyncConnection, keys: Collection[UnitKey]) -> dict[UnitKey, UnitRecord]:
    """Those of the units of `keys` that are known."""
    by_place: dict[tuple[str, int], set[str]] = {}
    for experiment, epoch, unit in keys:
        by_place.setdefault((experiment, epoch), set()).add(unit)
    table = experiment_units
    found: dict[UnitKey, UnitRecord] = {}
    for (experiment, epoch), units in sorted(by_place.items()):
        for piece in chunks(units):
            rows = await connection.execute(
                select(table.c.unit, table.c.record).where(
                    table.c.experiment == experiment, table.c.epoch == epoch, table.c.unit.in_(piece)
                )
            )
            for row in rows:
                found[experiment, epoch, row.unit] = _unit_decoder.decode(row.record)
    return found


async def load_past(connection: AsyncConnection, experiment: str, units: Collection[str]) -> dict[str, int]:
    """The covariates of `units`; who is not there has 0."""
    table = experiment_past
    found: dict[str, int] = {}
    for piece in chunks(units):
        rows = await connection.execute(
            select(table.c.unit, table.c.value).where(table.c.experiment == experiment, table.c.unit.in_(piece))
        )
        found.update((row.unit, row.value) for row in rows)
    return found


async def newest_units(
    connection: AsyncConnection, experiment: str, units: Collection[str]
) -> dict[UnitKey, UnitRecord]:
    """The units of one experiment, each in the newest epoch that has it."""
    table = experiment_units
    newest: dict[str, tuple[UnitKey, UnitRecord]] = {}
    for piece in chunks(units):
        rows = await connection.execute(
            select(table.c.epoch, table.c.unit, table.c.record)
            .where(table.c.experiment == experiment, table.c.unit.in_(piece))
            .order_by(table.c.epoch)
        )
        for row in rows:
            newest[row.unit] = ((experiment, row.epoch, row.unit), _unit_decoder.decode(row.record))
    return dict(newest.values())


async def save_units(connection: AsyncConnection, units: dict[UnitKey, UnitRecord], known: Collection[UnitKey]) -> None:
    """Write `units`; those in `known` have a row."""
    table = experiment_units
    old = [(key, record) for key, record in units.items() if key in known]
    new = [(key, record) for key, record in units.items() if key not in known]
    if old:
        await connection.execute(
            update(table)
            .where(
                table.c.experiment == bindparam("p_experiment"),
                table.c.epoch == bindparam("p_epoch"),
                table.c.unit == bindparam("p_unit"),
            )
            .values(record=bindparam("p_record")),
            [
                {"p_experiment": e, "p_epoch": n, "p_unit": u, "p_record": _unit_encoder.encode(record)}
                for (e, n, u), record in old
            ],
        )
    if new:
        await connection.execute(
            insert(table),
            [
                {"experiment": e, "epoch": n, "unit": u, "record": _unit_encoder.encode(record)}
                for (e, n, u), record in new
            ],
        )
