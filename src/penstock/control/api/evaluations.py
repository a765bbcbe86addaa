"""/api/v1/suites and /evaluations: what versions are asked, and how they answered."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from sqlalchemy import Row, select

from penstock.access.principals import Principal
from penstock.control.api.jobs import newest_jobs, told_job
from penstock.control.auth import ControlPart, needs
from penstock.control.gates.ask import build_of, measured_suite
from penstock.control.gates.evaluations import Measured, ask, cancel, find_evaluation
from penstock.control.gates.suites import find_suite, register_suite
from penstock.control.specs.resources import Name, Precision, Spec
from penstock.control.versions.find import find_version, reference_in
from penstock.core.errors import Conflict
from penstock.engine.identity import engine_digest
from penstock.registry.gates import SuiteGate
from penstock.registry.suites import parse_suite
from penstock.store.schema_gates import evaluation_items, evaluations, suites

router = APIRouter(tags=["gates"])
Reader = Annotated[Principal, Depends(needs("models:read"))]
Writer = Annotated[Principal, Depends(needs("models:write"))]


class SuiteBody(Spec):
    """The body of POST /suites."""

    name: Name
    lines: str = Field(min_length=1, max_length=4 << 20, description="JSONL: an item a line.")
    description: str = Field(default="", max_length=4096)


class EvaluationBody(Spec):
    """The body of POST /evaluations."""

    model: Name
    label: str = Field(description="A label, a digest, or @ENVIRONMENT: what that environment serves.")
    suite: str = Field(max_length=168, description="NAME, its newest, or NAME@sha256:...")
    precision: Precision | None = Field(default=None, description="Of the build; left out: int8, if there is one.")
    seed: int = Field(default=1, ge=0, lt=2**32)
    judge: str | None = Field(default=None, max_length=300, description="Version that judges; left out: none.")
    again: bool = Field(default=False, description="Measure anew, even if that was done.")


def suite_answer(row: Row[Any], *, whole: bool = False) -> dict[str, Any]:
    """A suite as the API tells it."""
    told = {
        "name": row.name,
        "digest": row.digest,
        "number": row.number,
        "items": row.items,
        "description": row.description,
        "created_at": row.created_at,
        "created_by": row.created_by,
    }
    if whole:
        suite = parse_suite(row.lines)
        told |= {"families": suite.families, "slices": suite.slices, "lines": row.lines}
    return told


def evaluation_answer(row: Row[Any]) -> dict[str, Any]:
    """An evaluation as the API tells it."""
    return told_job(evaluations, row)


@router.get("/suites")
async def list_suites(control: ControlPart, _who: Reader) -> list[dict[str, Any]]:
    """All suites, the newest of each name first."""
    async with control.database.read() as connection:
        rows = await connection.execute(select(suites).order_by(suites.c.name, suites.c.number.desc()))
        return [suite_answer(row) for row in rows]


@router.post("/suites", status_code=201)
async def add_suite(body: SuiteBody, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Register a suite by its digest; one that is there is left as it is."""
    async with control.deed(who) as change:
        return suite_answer(await register_suite(change, body.name, body.lines, body.description), whole=False)


@router.get("/suites/{reference:path}")
async def show_suite(reference: str, control: ControlPart, _who: Reader) -> dict[str, Any]:
    """One suite with its items: NAME, its newest, or NAME@sha256:..."""
    async with control.database.read() as connection:
        return suite_answer(await find_suite(connection, reference), whole=True)


@router.get("/evaluations")
async def list_evaluations(
    control: ControlPart,
    _who: Reader,
    model: str | None = None,
    label: str | None = None,
    state: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    """Evaluations, newest first."""
    statement = newest_jobs(evaluations, model=model, label=label, state=state, limit=limit)
    async with control.database.read() as connection:
        return [evaluation_answer(row) for row in await connection.execute(statement)]


@router.post("/evaluations", status_code=201)
async def evaluate(body: EvaluationBody, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Have a version answer a suite. What was measured already, by the same engine, is given as it is."""
    async with control.deed(who) as change:
        version = await find_version(change.connection, reference_in(body.model, body.label))
        build = await build_of(change.connection, version, body.precision)
        gate = SuiteGate(suite=body.suite, seed=body.seed, judge=body.judge)
        measured = await measured_suite(change.connection, gate, version, build)
        return evaluation_answer(await ask(change, measured, engine=engine_digest(), again=body.again))


@router.get("/evaluations/{identity}")
async def show_evaluation(identity: str, control: ControlPart, _who: Reader) -> dict[str, Any]:
    """One evaluation: what it is bound to, how far it is, and its figures."""
    async with control.database.read() as connection:
        return evaluation_answer(await find_evaluation(connection, identity))


@router.get("/evaluations/{identity}/items")
async def items_of(
    identity: str,
    control: ControlPart,
    _who: Reader,
    wrong: Annotated[bool, Query(description="Those alone that were answered wrong.")] = False,
    limit: Annotated[int, Query(ge=1, le=20_000)] = 1000,
) -> list[dict[str, Any]]:
    """What came of each item, in the suite's order."""
    statement = select(evaluation_items).where(evaluation_items.c.evaluation == identity)
    if wrong:
        statement = statement.where(evaluation_items.c.correct.is_(False))
    async with control.database.read() as connection:
        await find_evaluation(connection, identity)
        rows = await connection.execute(statement.order_by(evaluation_items.c.number).limit(limit))
        return [
            {
                "item": row.item,
                "right": row.correct,
                "value": row.value,
                "answer": row.answer,
                "why": row.why,
                "seconds": row.seconds,
            }
            for row in rows
        ]


@router.post("/evaluations/{identity}/replay", status_code=201)
async def replay(identity: str, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Measure the same again: same build, suite, seed and settings. Its figures tell which items were answered otherwise."""
    async with control.deed(who) as change:
        row = await find_evaluation(change.connection, identity)
        if row.kind == "scan" or row.state != "done":
            raise Conflict(f"The evaluation {identity} is {row.state}, of the kind {row.kind}: it is not replayed.")
        measured = Measured(**{name: getattr(row, name) for name in Measured.__struct_fields__})
        return evaluation_answer(await ask(change, measured, engine=engine_digest(), again=True, replay_of=row.id))


@router.post("/evaluations/{identity}/cancel")
async def stop(identity: str, control: ControlPart, who: Writer) -> dict[str, Any]:
    """End an evaluation that waits or runs."""
    async with control.deed(who) as change:
        await cancel(change, identity)
        return evaluation_answer(await find_evaluation(change.connection, identity))
