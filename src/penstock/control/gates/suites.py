"""Suites as rows: registered once by digest, found by name or by both."""

from typing import Any

from sqlalchemy import Row, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import allows
from penstock.control.context import Change
from penstock.control.specs.resources import EnvironmentSpec
from penstock.core.errors import BadRequest, Forbidden, NotFound
from penstock.core.references import check_name
from penstock.registry.exposure import chance_of, exposure_bits
from penstock.registry.suites import Memorisation, Suite, parse_suite
from penstock.store.schema import resources
from penstock.store.schema_gates import suites

_CHANCE = 1e-4


async def register_suite(change: Change, name: str, lines: str, description: str) -> Row[Any]:
    """The suite `name` with these lines; what is registered already is left as it is.

    Raises:
        BadRequest: naming the line that is wrong, or saying that its canaries could show nothing.
        Forbidden: if an environment's gates ask the newest suite of that name, or another tool is to read files of the suite, and the caller may not
            change environments.
    """
    check_name(name)
    suite = parse_suite(lines)
    _check_canaries(suite)
    if suite.harness is not None and suite.harness.files and not allows(change.caller.roles, "tenants:write"):
        raise Forbidden(
            "Tasks of one's own are code to lm-evaluation-harness: those who may change environments register them.",
            param="items",
        )
    mine = (suites.c.name == name) & (suites.c.digest == suite.digest)
    row = (await change.connection.execute(select(suites).where(mine))).one_or_none()
    if row is not None:
        return row
    await _check_may_replace(change, name)
    newest = select(func.coalesce(func.max(suites.c.number), 0)).where(suites.c.name == name)
    await change.connection.execute(
        insert(suites).values(
            name=name,
            digest=suite.digest,
            number=(await change.connection.execute(newest)).scalar_one() + 1,
            lines=lines,
            items=len(suite.items),
            description=description,
            created_at=change.now,
            created_by=change.caller.name,
        )
    )
    await change.audit("suite.register", name, digest=suite.digest, items=len(suite.items))
    return (await change.connection.execute(select(suites).where(mine))).one()


async def _check_may_replace(change: Change, name: str) -> None:
    """Whoever may not change an environment does not change what its gates ask, either."""
    rows = await change.connection.execute(
        select(resources.c.name, resources.c.spec).where(resources.c.kind == "Environment")
    )
    for row in rows:
        gates = EnvironmentSpec.model_validate(row.spec).gates
        if gates is None or all(gate.suite != name for gate in gates.suites):
            continue
        if not allows(change.caller.roles, "tenants:write"):
            raise Forbidden(
                f"The gates of {row.name} ask the suite {name}: its newest form is registered by those who may change {row.name}.",
                code="suite_in_use",
                param="name",
            )


def _check_canaries(suite: Suite) -> None:
    best = [exposure_bits(1, i.score.candidates) for i in suite.items if isinstance(i.score, Memorisation)]
    if best and chance_of(best) > _CHANCE:
        raise BadRequest(
            f"{len(best)} canaries with so few candidates could not show that a model has memorised them: add canaries, or candidates.",
            param="items",
        )


async def find_suite(connection: AsyncConnection, reference: str) -> Row[Any]:
    """The suite that `reference` names: NAME, its newest, or NAME@sha256:...

    Raises:
        NotFound: if there is none.
    """
    name, _, digest = reference.partition("@")
    statement = select(suites).where(suites.c.name == name).order_by(suites.c.number.desc()).limit(1)
    if digest:
        statement = statement.where(suites.c.digest == digest)
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise NotFound(
            f"There is no suite {reference!r}.", param="suite", hint="penstock suites add FILE NAME registers one."
        )
    return row
