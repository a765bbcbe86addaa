"""What a pipeline does: each deed and the step's note of it are one transaction, so that a kill leaves both or neither.

The step is claimed first in each: whoever cancels it at the same time waits, or is waited for, and never in a circle.
"""

from typing import Any

from sqlalchemy import Row, select, update

from penstock.access.principals import Permission, Principal, allows
from penstock.control.auth import read_principal
from penstock.control.context import SYSTEM, Change, Control
from penstock.control.deploy.canaries import CanaryWish, begin_canary
from penstock.control.deploy.record import Promotion, promote
from penstock.control.gates.ask import build_for, keep_scan, run_gates
from penstock.control.pipelines.builder import ask_for_build
from penstock.control.pipelines.observe import DEFAULT_PRECISION
from penstock.control.pipelines.rows import claim_turn, write_step
from penstock.control.versions.find import find_version
from penstock.control.versions.scan import scan
from penstock.core.errors import Forbidden
from penstock.core.references import Reference
from penstock.delivery.pipeline import Deed, End
from penstock.store.schema import keys
from penstock.store.schema_gates import evaluations
from penstock.store.schema_pipelines import pipeline_steps, pipelines

_NEEDS: dict[Deed, Permission] = {
    "scan": "models:write",
    "build": "models:write",
    "evaluate": "models:write",
    "promote": "deployments:write",
    "canary": "deployments:write",
}


class Actor:
    """Carries out deeds and ends."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def do(self, pipeline: Row[Any], step: Row[Any], deed: Deed) -> None:
        """Do it, unless the step has moved since it was read.

        Raises:
            PenstockError: what refused it: nothing was changed then.
        """
        caller = await self._caller(pipeline, deed)
        if deed in ("promote", "canary"):
            await self._deploy(caller, pipeline, step, deed)
            return
        reference = _reference(pipeline)
        findings = None
        if deed == "scan":
            async with self._control.database.read() as connection:
                version = await find_version(connection, reference)
            findings = await scan(self._control, version)
        async with self._control.deed(caller) as change:
            if not await claim_turn(change.connection, step, {"asks": step.asks + 1}):
                return
            version = await find_version(change.connection, reference)
            precision = pipeline.plan["precision"]
            if deed == "build":
                job = await ask_for_build(change, version, precision or DEFAULT_PRECISION)
                await write_step(change.connection, step, {"build": job})
                return
            if findings is not None:
                asked = [await keep_scan(change, version, findings)]
            else:
                asked = await run_gates(change, version, step.environment, precision, None)
            await write_step(change.connection, step, {"evaluations": await _noted(change, asked)})

    async def _deploy(self, caller: Principal, pipeline: Row[Any], step: Row[Any], deed: Deed) -> None:
        own = self._control.settings.control.environment
        async with self._control.change(caller) as change:
            if not await claim_turn(change.connection, step, {"asks": step.asks + 1}):
                change.abandon()
                return
            version = await find_version(change.connection, _reference(pipeline))
            build = await build_for(change.connection, step.environment, version, pipeline.plan["precision"])
            reason = f"{pipeline.plan['reason'] or 'A pipeline'} ({pipeline.id})"
            if deed == "canary":
                wish = CanaryWish(
                    reference=_reference(pipeline),
                    environment=step.environment,
                    plan=pipeline.plan["canary"],
                    precision=build.precision,
                    replicas=pipeline.plan["replicas"],
                    reason=reason,
                )
                values = {"canary": await begin_canary(change, wish, own_environment=own)}
            else:
                promotion = Promotion(
                    reference=_reference(pipeline),
                    environment=step.environment,
                    precision=build.precision,
                    replicas=pipeline.plan["replicas"],
                    reason=reason,
                )
                values = {"revision": (await promote(change, promotion, own_environment=own)).id}
            await write_step(change.connection, step, values)

    async def end(self, pipeline: Row[Any], step: Row[Any], move: End, outcomes: list[dict[str, Any]]) -> None:
        """End the step, and begin the next or end the pipeline; nothing if the step has moved since it was read."""
        name = f"{pipeline.model}:{pipeline.label}"
        async with self._control.deed(SYSTEM) as change:
            connection = change.connection
            values = {"state": move.state, "detail": move.words, "outcomes": outcomes, "ended_at": change.now}
            values["waits_since"] = None
            if not await claim_turn(connection, step, values):
                return
            told = {"step": step.kind, "environment": step.environment, "words": move.words}
            await change.audit("pipeline.step", name, pipeline=pipeline.id, state=move.state, **told)
            following = (
                update(pipeline_steps)
                .where(pipeline_steps.c.pipeline == pipeline.id, pipeline_steps.c.number == step.number + 1)
                .values(state="running", started_at=change.now)
            )
            if move.state == "done" and (await connection.execute(following)).rowcount == 1:
                return
            title = f"{step.kind} {step.environment}".strip()
            detail = "" if move.state == "done" else f"{title}: {move.words}"
            await connection.execute(
                update(pipelines)
                .where(pipelines.c.id == pipeline.id)
                .values(state=move.state, detail=detail, ended_at=change.now)
            )
            verb = {"done": "done", "refused": "refuse", "failed": "fail"}[move.state]
            still = [one for one in outcomes if one["state"] != "passed"]
            await change.audit(
                f"pipeline.{verb}", name, pipeline=pipeline.id, digest=pipeline.digest, outcomes=still, **told
            )

    async def _caller(self, pipeline: Row[Any], deed: Deed) -> Principal:
        async with self._control.database.read() as connection:
            caller = await read_principal(connection, keys.c.id == pipeline.key, self._control.clock())
        if caller is None:
            raise Forbidden(
                f"The key of {pipeline.principal}, who began it, is no longer valid: it may not {deed}.",
                code="pipeline_orphaned",
            )
        if not allows(caller.roles, _NEEDS[deed]):
            raise Forbidden(f"{caller.name}, who began it, may not {deed} any more: it needs {_NEEDS[deed]!r}.")
        return caller


async def _noted(change: Change, asked: list[str]) -> dict[str, list[str]]:
    """What a step notes of evaluations: all that it asked for, and which of them were made for it."""
    statement = select(evaluations.c.id).where(evaluations.c.id.in_(asked), evaluations.c.created_at == change.now)
    return {"asked": asked, "made": sorted((await change.connection.execute(statement)).scalars())}


def _reference(pipeline: Row[Any]) -> Reference:
    return Reference(name=pipeline.model, label=pipeline.label)
