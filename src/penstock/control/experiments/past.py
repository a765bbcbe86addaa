"""The covariate of an experiment: what its units did before it started, one whole number for each, written once at the start.

Of a unit's numerators `y` and denominators `x` it is the sum of `y - r x`, `r` being the ratio of all: the delta method's linearised
value, so that it goes with what the experiment will measure. Units without a past have 0.
"""

import asyncio

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.core.exchange import Exchange, Observation, Record
from penstock.experiments.design import Design
from penstock.experiments.metrics import METRICS, measures, told
from penstock.store.schema_experiments import exchanges, experiment_past, observations
from penstock.store.sql import Database

MOST_EXCHANGES = 500_000  # the newest ones
_PIECE = 2_000
_DAY_S = 86400.0
_LARGEST = (1 << 63) - 1

_decode = msgspec.msgpack.Decoder(Record).decode


async def gather_past(database: Database, name: str, design: Design, now: float) -> int:
    """Write the covariates of the experiment `name`, which is about to start; how many units have one.

    What is there is read without a lock, and written in pieces, so that ingest goes on meanwhile.

    Args:
        database: whose exchanges are read.
        name: of the experiment, a draft.
        design: what was registered.
        now: the time of the start, Unix seconds.

    Raises:
        Unavailable: if the database cannot be read or written.
    """
    if design.covariate is None:
        return 0
    values = linearised(await _sums(database, design, now - design.covariate.days * _DAY_S))
    listed = [
        {"experiment": name, "unit": unit, "value": max(-_LARGEST, min(_LARGEST, value))}
        for unit, value in sorted(values.items())
        if value
    ]
    async with database.write() as connection:  # of a start that did not come to its end
        await connection.execute(delete(experiment_past).where(experiment_past.c.experiment == name))
    for start in range(0, len(listed), _PIECE):
        async with database.write() as connection:
            await connection.execute(insert(experiment_past), listed[start : start + _PIECE])
    return len(listed)


async def _sums(database: Database, design: Design, since: float) -> dict[str, tuple[int, int]]:
    """By unit, the metric's numerators and denominators."""
    wanted = design.covariate.metric if design.covariate is not None else ""
    metric = METRICS[wanted or design.primary.metric].name
    sums: dict[str, tuple[int, int]] = {}
    async with database.read() as connection:
        said = await _said(connection, metric, since)
    before: int | None = None
    seen = 0
    while seen < MOST_EXCHANGES:
        query = select(exchanges.c.sequence, exchanges.c.record).where(
            exchanges.c.route == design.route, exchanges.c.at >= since
        )
        if before is not None:
            query = query.where(exchanges.c.sequence < before)
        async with database.read() as connection:
            rows = (await connection.execute(query.order_by(exchanges.c.sequence.desc()).limit(_PIECE))).all()
        await asyncio.to_thread(_take, sums, design, [row.record for row in rows], metric, said)
        if len(rows) < _PIECE:
            break
        seen += len(rows)
        before = rows[-1].sequence
    return sums


def _take(
    sums: dict[str, tuple[int, int]],
    design: Design,
    raw: list[bytes],
    metric: str,
    said: dict[str, tuple[int, int]],
) -> None:
    for one in raw:
        record = _decode(one)
        if isinstance(record, Exchange):
            _add(sums, design.unit, record, metric, said)


def linearised(sums: dict[str, tuple[int, int]]) -> dict[str, int]:
    """For each unit its numerators less what its denominators let expect, rounded to a whole number."""
    top = sum(one[0] for one in sums.values())
    bottom = sum(one[1] for one in sums.values())
    if bottom == 0:
        return {}
    # In thousandths, since of a share with few requests the whole part is nearly always 0.
    return {unit: (1000 * (y * bottom - top * x)) // bottom for unit, (y, x) in sums.items()}


def _add(
    sums: dict[str, tuple[int, int]], unit: str, record: Exchange, metric: str, said: dict[str, tuple[int, int]]
) -> None:
    name = record.user if unit == "user" else record.session
    if not name:
        return
    key = f"{record.tenant}/{name}"
    pairs = [(top, bottom) for found, top, bottom in measures(record) if found == metric]
    if record.id in said:
        pairs.append(said[record.id])
    for top, bottom in pairs:
        before = sums.get(key, (0, 0))
        sums[key] = (before[0] + top, before[1] + bottom)


async def _said(connection: AsyncConnection, metric: str, since: float) -> dict[str, tuple[int, int]]:
    """By request: what was told of it first, for metrics that are told."""
    if metric not in {"success", "rating", "reports"}:
        return {}
    rows = await connection.execute(
        select(observations.c.request, observations.c.record)
        .where(observations.c.received >= since, observations.c.state == "attributed", observations.c.request != "")
        .order_by(observations.c.sequence)
    )
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        record = _decode(row.record)
        if isinstance(record, Observation):
            for name, numerator in told(record):
                if name == metric:
                    found.setdefault(row.request, (numerator, 0 if name == "reports" else 1))
    return found
