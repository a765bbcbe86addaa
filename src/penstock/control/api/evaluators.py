"""`/api/v1/evaluators/NAME/coverage` and `/api/v1/experiments/NAME/evaluators`: how much has been judged, how, and at what cost."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs
from penstock.control.context import Control
from penstock.control.evaluators.loops import Worker
from penstock.control.evaluators.store import UNUSED, behind_of, counts_of, offset_of, used_by
from penstock.control.experiments.life import experiment_row
from penstock.control.specs.evaluator import EvaluatorSpec
from penstock.core.errors import NotFound
from penstock.experiments.design import Design, parse_design
from penstock.experiments.scoring import coverage
from penstock.store.schema import resources

Reader = Annotated[Principal, Depends(needs("experiments:read"))]
Workers = Callable[[], Mapping[str, Worker]]


def evaluators_router(workers: Workers) -> APIRouter:
    """The routes, to stand below /api/v1; `workers` are those of this process."""
    router = APIRouter(tags=["evaluators"])

    @router.get("/evaluators/{name}/coverage")
    async def one(who: Reader, control: ControlPart, name: str) -> dict[str, Any]:
        """What became of the answers that it drew, by experiment and arm; how far it is behind, and what its calls have cost."""
        async with control.database.read() as connection:
            spec = (await _specs(connection, name)).get(name)
            if spec is None:
                raise NotFound(f"There is no evaluator {name!r}.")
            return await _told(control, connection, name, spec, workers(), None)

    @router.get("/experiments/{name}/evaluators")
    async def of_experiment(who: Reader, control: ControlPart, name: str) -> dict[str, Any]:
        """The evaluators that look at the experiment's answers, each as `/evaluators/NAME/coverage` tells it, of this experiment alone."""
        async with control.database.read() as connection:
            design = parse_design((await experiment_row(connection, name)).spec)
            found = [
                await _told(control, connection, evaluator, spec, workers(), name)
                for evaluator, spec in (await _specs(connection)).items()
                if _is_about(spec, name, design)
            ]
        return {"experiment": name, "evaluators": found}

    return router


async def _specs(connection: AsyncConnection, name: str | None = None) -> dict[str, EvaluatorSpec]:
    statement = select(resources.c.name, resources.c.spec).where(resources.c.kind == "Evaluator")
    if name is not None:
        statement = statement.where(resources.c.name == name)
    rows = await connection.execute(statement.order_by(resources.c.name))
    return {row.name: EvaluatorSpec.model_validate(row.spec) for row in rows}


def _is_about(spec: EvaluatorSpec, experiment: str, design: Design) -> bool:
    if (spec.experiments and experiment not in spec.experiments) or (spec.routes and design.route not in spec.routes):
        return False
    return not design.paired or spec.compare is not None


async def _told(
    control: Control,
    connection: AsyncConnection,
    name: str,
    spec: EvaluatorSpec,
    workers: Mapping[str, Worker],
    experiment: str | None,
) -> dict[str, Any]:
    counts = (await counts_of(connection, evaluator=name, experiment=experiment)).get(name, {})
    used = (await used_by(connection, (name,))).get(name, UNUSED)
    worker = workers.get(name)
    return {
        "evaluator": name,
        "method": spec.method,
        "event": spec.event,
        "share": spec.share,
        "offset": await offset_of(connection, name),
        "running": worker is not None,
        "held": worker.held if worker is not None else "",
        "behind_s": await behind_of(connection, name, control.clock()),
        **used,
        "coverage": [
            {"experiment": where, "arm": arm, **coverage(results)._asdict(), "results": results}
            for (where, arm), results in sorted(counts.items())
        ],
    }
