"""`kind: Evaluator` and `kind: References`: checked against what is there, and left alone while a running experiment measures by them."""

from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.kinds import Origin, ResourceKind, check_place
from penstock.control.specs.evaluator import EvaluatorSpec, ReferencesSpec
from penstock.control.specs.resources import Spec
from penstock.core.errors import BadRequest, Conflict
from penstock.experiments.answer_rules import check_rules
from penstock.experiments.design import parse_design
from penstock.experiments.references import check_references
from penstock.store.schema import resources
from penstock.store.schema_evaluators import evaluator_counts, evaluator_offsets, evaluator_usage, evaluator_waiting
from penstock.store.schema_experiments import experiments


def evaluator_kinds() -> tuple[ResourceKind, ...]:
    """Both kinds, References first: evaluators refer to them."""
    return (ReferencesKind("References", "references", ReferencesSpec), EvaluatorKind("Evaluator", "evaluators"))


class ReferencesKind(ResourceKind):
    """Questions whose answers are known."""

    def parse(self, spec: object) -> Spec:
        """See `Kind.parse`."""
        parsed = super().parse(spec)
        assert isinstance(parsed, ReferencesSpec)
        try:
            check_references(parsed.references(), "items")
        except BadRequest as error:
            raise _below_spec(error) from None
        return parsed

    async def put(self, change: Change, name: str, spec: Spec, origin: Origin) -> dict[str, Any]:
        """See `Kind.put`.

        Raises:
            Conflict: if it changes what a running experiment measures by.
        """
        if await _differs(self, change.connection, name, spec):
            for evaluator in await _scoring_by(change.connection, name):
                await _check_unmeasured(change.connection, evaluator)
        return await super().put(change, name, spec, origin)

    async def delete(self, change: Change, name: str) -> None:
        """See `Kind.delete`."""
        users = await _scoring_by(change.connection, name)
        if users:
            raise Conflict(f"The references {name} are still used by the evaluator {users[0]}.")
        await super().delete(change, name)


class EvaluatorKind(ResourceKind):
    """How answers are scored after the fact."""

    def parse(self, spec: object) -> Spec:
        """See `Kind.parse`."""
        parsed = super().parse(spec)
        assert isinstance(parsed, EvaluatorSpec)
        if parsed.rules is not None:
            try:
                check_rules(parsed.rules.rules())
            except BadRequest as error:
                raise _below_spec(error) from None
        return parsed

    async def put(self, change: Change, name: str, spec: Spec, origin: Origin) -> dict[str, Any]:
        """See `Kind.put`.

        Raises:
            BadRequest: if what it scores by is not there.
            Conflict: if it changes what a running experiment measures by.
        """
        assert isinstance(spec, EvaluatorSpec)
        await _check_there(change.connection, spec)
        if await _differs(self, change.connection, name, spec):
            await _check_unmeasured(change.connection, name)
        return await super().put(change, name, spec, origin)

    async def delete(self, change: Change, name: str) -> None:
        """Remove it with its counts; what it has told stays."""
        await _check_unmeasured(change.connection, name)
        await super().delete(change, name)
        for table in (evaluator_offsets, evaluator_counts, evaluator_usage, evaluator_waiting):
            await change.connection.execute(delete(table).where(table.c.evaluator == name))


def _below_spec(error: BadRequest) -> BadRequest:
    return BadRequest(f"spec.{error.message}", param=f"spec.{error.param}", code=error.code)


async def _differs(kind: ResourceKind, connection: AsyncConnection, name: str, spec: Spec) -> bool:
    """Whether there is one of this name with another spec."""
    statement = select(resources.c.spec).where(resources.c.kind == kind.name, resources.c.name == name)
    old = (await connection.execute(statement)).scalar_one_or_none()
    return old is not None and kind.dump(kind.model.model_validate(old)) != kind.dump(spec)


async def _scoring_by(connection: AsyncConnection, references: str) -> list[str]:
    """The evaluators that score by these references."""
    rows = await connection.execute(
        select(resources.c.name, resources.c.spec).where(resources.c.kind == "Evaluator").order_by(resources.c.name)
    )
    return [row.name for row in rows if row.spec.get("references") == references]


async def _check_unmeasured(connection: AsyncConnection, evaluator: str) -> None:
    rows = await connection.execute(
        select(experiments.c.name, experiments.c.spec).where(experiments.c.state.in_(("running", "paused")))
    )
    for row in rows:
        if evaluator in parse_design(row.spec).evaluators:
            raise Conflict(
                f"The experiment {row.name}, which runs, measures by the evaluator {evaluator}: it must stay as it is.",
                hint="Make another evaluator, or stop the experiment first.",
            )


async def _check_there(connection: AsyncConnection, spec: EvaluatorSpec) -> None:
    if spec.references is not None:
        mine = (resources.c.kind == "References") & (resources.c.name == spec.references)
        if (await connection.execute(select(resources.c.name).where(mine))).first() is None:
            raise BadRequest(f"spec.references: there are no references {spec.references!r}.", param="spec.references")
    place = spec.place
    if place is not None:
        await check_place(connection, place, f"spec.{spec.method}", "evaluator")
    if place is not None and place.pool is not None:
        mine = (resources.c.kind == "Pool") & (resources.c.name == place.pool)
        pool = (await connection.execute(select(resources.c.spec).where(mine))).scalar_one()
        if pool.get("adopt") and not pool.get("model"):
            raise BadRequest(
                f"spec.{spec.method}.pool: the pool {place.pool!r} does not say what its servers call the model.",
                param=f"spec.{spec.method}.pool",
                hint="Give the Pool its 'model'.",
            )
