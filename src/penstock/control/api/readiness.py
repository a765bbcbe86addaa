"""/api/v1/models/NAME/versions/LABEL/readiness: the ML Test Score of a version and its deployment, and signed answers."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query
from pydantic import Field

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs
from penstock.control.gates.rubric_answers import give_answer, readiness_of
from penstock.control.specs.resources import Name, Spec
from penstock.control.versions.find import find_version, reference_in

router = APIRouter(tags=["models"])
Reader = Annotated[Principal, Depends(needs("models:read"))]
Writer = Annotated[Principal, Depends(needs("models:write"))]


class AnswerBody(Spec):
    """The body of POST /models/{name}/versions/{label}/readiness."""

    test: str = Field(max_length=32, description="Such as model-2.")
    text: str = Field(min_length=1, max_length=16_384, description="What was done, and what came of it.")
    signer: Name = Field(description="Who signs the answer.")


@router.get("/models/{name}/versions/{label}/readiness")
async def show_readiness(
    name: str,
    label: str,
    control: ControlPart,
    _who: Reader,
    environment: Annotated[str, Query(max_length=96, description="Where it runs, or is to run.")] = "production",
) -> dict[str, Any]:
    """The score by the ML Test Score rubric: 28 tests in four groups, each with its evidence, or the command that supplies it."""
    async with control.database.read() as connection:
        version = await find_version(connection, reference_in(name, label))
        found = await readiness_of(connection, version, environment)
    about: dict[str, Any] = {
        "model": version.model,
        "label": version.label,
        "digest": version.digest,
        "environment": environment,
    }
    about |= msgspec.to_builtins(found)
    return about


@router.post("/models/{name}/versions/{label}/readiness", status_code=201)
async def answer_readiness(
    name: str, label: str, body: AnswerBody, control: ControlPart, who: Writer
) -> dict[str, Any]:
    """Say that a test was done by hand, signed: half a point."""
    async with control.change(who) as change:
        version = await find_version(change.connection, reference_in(name, label))
        await give_answer(control, change, version, body.test, body.text, body.signer)
    return {"model": version.model, "label": version.label, "digest": version.digest, "test": body.test}
