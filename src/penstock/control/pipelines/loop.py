"""The loop that moves pipelines on: look, decide (pure, `delivery.pipeline`), do. The leader alone acts."""

import asyncio
import logging
from typing import Any

import msgspec
from sqlalchemy import Row, select, update

from penstock.control.context import Control
from penstock.control.leases import Lease
from penstock.control.pipelines.act import Actor
from penstock.control.pipelines.observe import Look, observe
from penstock.control.pipelines.rows import current_step
from penstock.core.errors import PenstockError, Unavailable
from penstock.delivery.pipeline import Act, End, Move, Step, Wait, after_refusal, decide
from penstock.store.schema_pipelines import pipeline_steps, pipelines

_LOG = logging.getLogger("penstock.control")
_LOOK_S = 0.5
_PATIENT_S = 2.0  # between two looks at what waits for people, or for somebody else's change


class Pipelines:
    """Moves every pipeline that is under way. Run it as a task."""

    def __init__(self, control: Control, lease: Lease | None = None) -> None:
        """The loop over `control`; it leads while `lease` is held, by default one of its own."""
        self._control = control
        self._actor = Actor(control)
        self._lease = lease or Lease(control, "pipelines")
        self._due: dict[str, float] = {}  # by pipeline: when it is looked at again
        self._said: dict[str, str] = {}  # by pipeline: what went wrong last, as it was logged

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            moved = False
            try:
                if await self._lease.held():
                    moved = await self.round()
            except PenstockError as error:
                _LOG.warning("pipelines: %s", error.message)
            if not moved:
                await asyncio.sleep(_LOOK_S)

    async def round(self) -> bool:
        """Move each pipeline that is due; whether one took a step.

        Raises:
            Unavailable: if the database cannot be reached.
        """
        async with self._control.database.read() as connection:
            statement = select(pipelines).where(pipelines.c.state == "running").order_by(pipelines.c.created_at)
            running = (await connection.execute(statement)).all()
        known = {row.id for row in running}
        self._due = {name: at for name, at in self._due.items() if name in known}
        self._said = {name: words for name, words in self._said.items() if name in known}
        moved = False
        for row in running:
            if self._due.get(row.id, 0.0) > self._control.clock():
                continue
            try:
                moved |= await self._move(row)
            except Unavailable:
                raise
            except PenstockError as error:  # of this one alone: the others go on
                self._due[row.id] = self._control.clock() + _PATIENT_S
                if self._said.get(row.id) != error.message:
                    self._said[row.id] = error.message
                    _LOG.warning("pipeline %s: %s", row.id, error.message)
        return moved

    async def _move(self, pipeline: Row[Any]) -> bool:
        now = self._control.clock()
        async with self._control.database.read() as connection:
            step = await current_step(connection, pipeline.id)
            if step is None:
                return False
            look = await self._look(connection, pipeline, step, now)
        move: Move = (
            look
            if isinstance(look, End)
            else decide(_value(step), look.seen, now=now, patience_s=pipeline.plan["patience_s"])
        )
        pause = _LOOK_S
        if isinstance(move, Act):
            try:
                await self._actor.do(pipeline, step, move.deed)
            except Unavailable:
                raise
            except PenstockError as error:
                move, pause = after_refusal(error.code, error.message), _PATIENT_S
            else:
                return True
        outcomes = step.outcomes if isinstance(look, End) or look.outcomes is None else look.outcomes
        if isinstance(move, End):
            await self._actor.end(pipeline, step, move, outcomes)
            return True
        assert isinstance(move, Wait)
        self._due[pipeline.id] = now + (_PATIENT_S if move.people else pause)
        await self._note(step, move, outcomes, now)
        return False

    async def _look(self, connection: Any, pipeline: Row[Any], step: Row[Any], now: float) -> Look | End:
        """What is seen, or the step's end if it cannot be seen: what a gate names is not there."""
        try:
            return await observe(connection, pipeline, step, now)
        except Unavailable:
            raise
        except PenstockError as error:
            return End(state="failed", words=error.message)

    async def _note(self, step: Row[Any], move: Wait, outcomes: list[dict[str, Any]], now: float) -> None:
        """Write down where the step stands, if that has changed."""
        values: dict[str, Any] = {"detail": move.words, "outcomes": outcomes}
        values["waits_since"] = (step.waits_since or now) if move.people else None
        if all(getattr(step, name) == value for name, value in values.items()):
            return
        async with self._control.database.write() as connection:
            await connection.execute(
                update(pipeline_steps)
                .where(
                    pipeline_steps.c.pipeline == step.pipeline,
                    pipeline_steps.c.number == step.number,
                    pipeline_steps.c.state == "running",
                    pipeline_steps.c.turn == step.turn,
                )
                .values(**values)
            )


def _value(step: Row[Any]) -> Step:
    return msgspec.convert(
        {
            "kind": step.kind,
            "environment": step.environment,
            "since": step.started_at or 0.0,
            "asks": step.asks,
            "waits_since": step.waits_since,
        },
        Step,
    )
