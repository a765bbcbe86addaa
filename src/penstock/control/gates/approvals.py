"""Approvals: somebody's word for a version in an environment, bound to what its gates said then."""

from typing import Any

from sqlalchemy import ColumnElement, Row, insert, select, update

from penstock.access.principals import Principal
from penstock.control.context import Change
from penstock.control.gates.ask import judge
from penstock.core.errors import Conflict, Forbidden, NotFound
from penstock.registry.gates import nobody_pushed
from penstock.store.schema_gates import approvals


async def approve(
    change: Change, version: Any, environment: str, reason: str, precision: str | None = None
) -> Row[Any]:
    """The approval of the caller, for the version whose row is given, with what its build in `precision` showed; None: the one that a promotion takes.

    Raises:
        NotFound: if there is no such environment.
        Conflict: if nobody asks for approvals there, or another's word is asked for and nobody knows who pushed the version.
        Forbidden: if the caller is no person, or pushed the version and another's word is asked for.
    """
    gated = await judge(change.connection, version, environment, precision, change.now)
    wanted = gated.policy.approval if gated is not None else None
    if gated is None or wanted is None:
        raise Conflict(f"Nobody asks for approvals in {environment}.", code="no_approval_needed", param="environment")
    if not change.caller.person:
        raise Forbidden(
            f"The key {change.caller.name} belongs to no principal: an approval is a person's word.",
            code="no_principal",
            hint=f"An administrator says whose it is: penstock principals create NAME --role operator, then penstock keys adopt {change.caller.key} --principal NAME.",
        )
    if wanted.by_other and not gated.subject.pusher:
        said, command = nobody_pushed(gated.subject)
        raise Conflict(said, code="pusher_unknown", param="label", hint=command or None)
    if wanted.by_other and change.caller.person == gated.subject.pusher:
        raise Forbidden(
            f"{change.caller.name} pushed {gated.subject.reference}: somebody else has to approve it for {environment}.",
            code="own_version",
        )
    await _withdraw(change, version, environment)
    identity = change.new_id("apr")
    await change.connection.execute(
        insert(approvals).values(
            id=identity,
            environment=environment,
            model=version.model,
            label=version.label,
            digest=version.digest,
            policy_hash=gated.judgement.policy_hash,
            results_hash=gated.judgement.results_hash,
            principal=change.caller.name,
            person=change.caller.person,
            reason=reason,
            at=change.now,
        )
    )
    await change.audit(
        "version.approve",
        f"{environment}/{gated.subject.reference}",
        digest=version.digest,
        policy=gated.judgement.policy_hash,
        results=gated.judgement.results_hash,
        reason=reason,
    )
    return (await change.connection.execute(select(approvals).where(approvals.c.id == identity))).one()


async def withdraw(change: Change, version: Any, environment: str, reason: str) -> None:
    """Take the caller's approval back.

    Raises:
        NotFound: if there is none.
    """
    if not await _withdraw(change, version, environment):
        raise NotFound(f"{change.caller.name} has not approved {version.model}:{version.label} for {environment}.")
    await change.audit("version.disapprove", f"{environment}/{version.model}:{version.label}", reason=reason)


async def _withdraw(change: Change, version: Any, environment: str) -> int:
    taken = await change.connection.execute(
        update(approvals)
        .where(
            approvals.c.environment == environment,
            approvals.c.model == version.model,
            approvals.c.digest == version.digest,
            _by(change.caller),
            approvals.c.withdrawn_at.is_(None),
        )
        .values(withdrawn_at=change.now)
    )
    return taken.rowcount


def _by(caller: Principal) -> ColumnElement[bool]:
    """The condition that an approval is the caller's; of a key that belongs to nobody those that it gave when that was enough."""
    if caller.person:
        return approvals.c.person == caller.person
    return (approvals.c.person == "") & (approvals.c.principal == caller.name)
