"""The evaluation loop: reads what has been counted, judges, and acts: observe, decide (pure), apply."""

import asyncio
import logging
from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Row, func, insert, select, update

from penstock.control.context import SYSTEM, Control
from penstock.control.deploy.canaries import conclude, give_up_unready
from penstock.control.deploy.canary_rows import canary_of
from penstock.control.experiments.hooks import follow
from penstock.control.experiments.life import advance, decide, experiment_row, renew, set_dose
from penstock.control.experiments.signal import Signal
from penstock.control.experiments.store import ingested, load_statistics
from penstock.control.ingest.counts import settle_pending
from penstock.core.errors import PenstockError
from penstock.delivery.plan import START_S
from penstock.delivery.watch import heard_until
from penstock.experiments.canary import evidence_in_words
from penstock.experiments.counted import Statistics
from penstock.experiments.design import Design, parse_design
from penstock.experiments.hooks import deed_of
from penstock.experiments.judging import judged, moved
from penstock.experiments.pair_verdict import dose_of, spec_of
from penstock.experiments.ramp import Move, Standing
from penstock.experiments.verdict import Verdict
from penstock.store.schema_experiments import experiment_epochs, experiment_points, experiments

_LOG = logging.getLogger("penstock.control.experiments.life")

IDLE_S = 1.0  # how often running experiments are looked at when nothing new comes
PAUSE_S = 0.5  # between two rounds; what has tripped does not wait for one
POINTS = 300  # about how many points in time an experiment's chart has
SETTLE_S = 60.0
SHARE_S = 1.0  # how often control processes tell one another whom they hear


class Found(NamedTuple):
    """A verdict, the ingest sequence up to which it knows, and its evidence in words."""

    verdict: Verdict
    known: int
    evidence: tuple[str, ...]


class Evaluator:
    """One loop for all experiments; `failures` counts rounds that could not be ended."""

    def __init__(self, control: Control, signal: Signal) -> None:
        self._control = control
        self._signal = signal
        self._last_point: dict[str, tuple[float, int]] = {}  # by experiment: when, and units by then
        self._settled_at = 0.0
        self._shared_at = 0.0
        self._heard = 0.0
        self.failures = 0

    async def run(self) -> None:
        """Evaluate until cancelled; a round that fails is told, counted and tried again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rounds(), name="experiments' rounds")
            group.create_task(self._alarms(), name="experiments' alarms")

    async def _alarms(self) -> None:
        """Act at once on guardrails that have tripped."""
        while True:
            for name in sorted(await self._signal.alarm()):
                try:
                    await self.evaluate(name, news=False, alarm=True)
                except PenstockError as error:  # the next round acts on it
                    self.failures += 1
                    _LOG.warning("The experiment %s could not be ended: %s", name, error.message)

    async def _rounds(self) -> None:
        while True:
            names = await self._signal.wait(IDLE_S)
            try:
                await self.round(names or None)
            except PenstockError as error:
                self.failures += 1
                _LOG.warning("Experiments could not be evaluated: %s", error.message)
            await asyncio.sleep(PAUSE_S)

    async def round(self, names: Collection[str] | None = None) -> None:
        """Look at the running experiments among `names` (None: at all), and at the decided ones that still hear feedback.

        Raises:
            Unavailable: if the database cannot be read or written.
        """
        async with self._control.database.read() as connection:
            rows = (
                await connection.execute(
                    select(experiments.c.name).where(experiments.c.state == "running").order_by(experiments.c.name)
                )
            ).scalars()
            running = list(rows)
        for name in running:
            # Those without news are looked at for their expiry and their ramp, which go by the clock.
            try:
                await self.evaluate(name, news=names is None or name in names)
            except PenstockError as error:  # one that cannot be judged must not stop the others
                self.failures += 1
                _LOG.warning("The experiment %s could not be evaluated: %s", name, error.message)
        now = self._control.clock()
        if now - self._settled_at >= SETTLE_S:
            self._settled_at = now
            async with self._control.database.write() as connection:
                while await settle_pending(connection, now) == 500:
                    pass

    async def evaluate(self, name: str, *, news: bool = True, alarm: bool = False) -> Verdict | None:
        """Judge one experiment and do what follows; None if it no longer runs. An `alarm` can end it, and nothing else."""
        now = self._control.clock()
        # Before the statistics are read: they hold all of it.
        heard = 0.0 if alarm else await self._heard_until(now)
        async with self._control.database.read() as connection:
            row = await experiment_row(connection, name)
            if row.state != "running":
                return None
            statistics = await load_statistics(connection, name)
            known = await ingested(connection)
            since = (
                await connection.execute(
                    select(experiment_epochs.c.started_at).where(
                        experiment_epochs.c.experiment == name, experiment_epochs.c.epoch == row.epoch
                    )
                )
            ).scalar_one()
        design = parse_design(row.spec)
        standing = Standing(epoch=row.epoch, step=row.step, since=since)
        if (
            design.strategy == "bandit"
        ):  # judging many arms takes a good part of a second: the loop answers others meanwhile
            verdict, move = await asyncio.to_thread(_concluded, design, statistics, standing, now)
        else:
            verdict, move = _concluded(design, statistics, standing, now)
        if news:
            await self._store(row, verdict, known)
        if alarm and move.kind != "decide" and not move.drops:
            return verdict
        evidence = evidence_in_words(design, statistics, verdict)
        await self._act(row, design, Found(verdict, known, evidence), move, heard)
        if design.paired and move.kind == "hold":
            ran_s = now - (row.started_at or now)
            await self._dose(row, design, dose_of(design, statistics, ran_s=ran_s, dose=row.dose))
        return verdict

    async def _dose(self, row: Row[Any], design: Design, share: float) -> None:
        """Have a second arm answer `share` of the requests, if that is another one than now."""
        if share == (spec_of(design).share if row.dose is None else row.dose):
            return
        async with self._control.change(SYSTEM) as change:
            current = await experiment_row(change.connection, row.name)
            if current.state == "running":
                await set_dose(change, row.name, share)

    async def _heard_until(self, now: float) -> float:
        """Up to when all that gateways have recorded is known; 0 if that cannot be said."""
        if not self._shared_at <= now < self._shared_at + SHARE_S:
            async with self._control.database.write() as connection:
                self._heard = heard_until(await self._signal.watch.share(connection), now)
            self._shared_at = now
        return self._heard

    async def _act(self, row: Row[Any], design: Design, found: Found, move: Move, heard: float) -> None:
        verdict = found.verdict
        now, lapse = self._control.clock(), design.plan.lapse_s
        expires = row.expires_at
        # Shares are carried on, and raised, only as far as what was done under them is known.
        known = heard + lapse
        renewing = expires is not None and expires - now < lapse * 2 / 3 and known - expires >= lapse / 6
        if move.kind == "advance" and expires is not None and now - heard > lapse / 3:
            move = Move(kind="hold")
        if move.kind == "hold" and (await self._gave_up(row, verdict, now) or not renewing):
            return
        async with self._control.change(SYSTEM) as change:
            current = await experiment_row(change.connection, row.name)
            if current.state != "running" or current.epoch != row.epoch:
                return  # somebody was quicker; the next round sees what is now
            if move.kind == "decide":
                await change.connection.execute(
                    update(experiments)
                    .where(experiments.c.name == row.name)
                    .values(verdict=msgspec.to_builtins(verdict), judged_to=found.known)
                )
                canary = await canary_of(change.connection, row.name)
                deed = deed_of(design.hooks, design.arms, state=verdict.state, arm=verdict.arm)
                if canary is None and deed is not None:
                    followed = await follow(change, row.name, deed, self._control.settings.control.environment)
                    # What is promoted serves from the deployment: the route goes back to its own targets.
                    serving = "" if followed.done and deed.act == "promote" else move.serving
                    move = msgspec.structs.replace(move, reasons=(*move.reasons, followed.words), serving=serving)
                if canary is None:
                    await decide(change, row.name, serving=move.serving, reasons=move.reasons)
                else:
                    await conclude(change, canary, move, found.evidence)
            elif move.kind == "advance":
                await advance(change, current, move, heard)
            else:
                await renew(change, current, heard)
        if move.kind != "hold":
            _LOG.info("Experiment %s: %s. %s", row.name, move.kind, " ".join(move.reasons))

    async def _gave_up(self, row: Row[Any], verdict: Verdict, now: float) -> bool:
        """Whether this is the canary of a deployment whose replicas never came: then it has ended."""
        waited = now - (row.started_at or now)
        if row.expires_at is None or waited < START_S or any(one.units for one in verdict.arms):
            return False
        async with self._control.change(SYSTEM) as change:
            ended = await give_up_unready(change, row.name)
            if not ended:
                change.abandon()
        return ended

    async def _store(self, row: Row[Any], verdict: Verdict, known: int) -> None:
        """Keep the verdict, which knows of records up to the ingest sequence `known`, and a point of each estimate when it is time for one."""
        units = sum(one.units for one in verdict.arms)
        age = verdict.at - (row.started_at or verdict.at)
        last, had = await self._point_before(row.name)
        points = []
        if units > had and (verdict.at - last >= max(1.0, age / POINTS) or verdict.state != "running"):
            points = _points(row.name, verdict)
            self._last_point[row.name] = (verdict.at, units)
        async with self._control.database.write() as connection:
            await connection.execute(
                update(experiments)
                .where(experiments.c.name == row.name, experiments.c.state == "running")
                .values(verdict=msgspec.to_builtins(verdict), judged_to=known)
            )
            if points:
                await connection.execute(insert(experiment_points), points)

    async def _point_before(self, name: str) -> tuple[float, int]:
        """When the last point was made and how many units there were; after a restart from what is stored."""
        known = self._last_point.get(name)
        if known is None:
            async with self._control.database.read() as connection:
                at = (
                    await connection.execute(
                        select(func.max(experiment_points.c.at)).where(experiment_points.c.experiment == name)
                    )
                ).scalar_one_or_none()
            known = self._last_point[name] = (at or 0.0, 0)
        return known


def _concluded(design: Design, statistics: Statistics, standing: Standing, now: float) -> tuple[Verdict, Move]:
    verdict = judged(design, statistics, now)
    return verdict, moved(design, statistics, verdict, standing, now)


def _points(name: str, verdict: Verdict) -> list[dict[str, Any]]:
    """A row for each arm of each metric; the control's row has no difference."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in verdict.comparisons:
        shared = {"experiment": name, "metric": one.metric, "at": verdict.at}
        rows[one.metric, one.control] = shared | {
            "arm": one.control,
            "n": one.control_n,
            "value": one.control_value,
            "estimate": None,
            "lower": None,
            "upper": None,
        }
        rows[one.metric, one.arm] = shared | {
            "arm": one.arm,
            "n": one.n,
            "value": one.value,
            "estimate": one.estimate,
            "lower": one.lower,
            "upper": one.upper,
        }
    return list(rows.values())
