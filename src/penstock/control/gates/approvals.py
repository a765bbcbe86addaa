"""Approvals: somebody's word for a version in an environment, bound to what its gates said then."""

from typing import Any

from sqlalchemy import Row, insert, select, update

from penstock.control.context import Change
from penstock.control.gates.ask import judge
from penstock.core.errors import Conflict, Forbidden, NotFound
from penstock.store.schema_gates import approvals


async def approve(
    change: Change, version: Any, environment: str, reason: str, precision: str | None = None
) -> Row[Any]:
    """The approval of the caller, for the version whose row is given, with what its build in `precision` showed; None: the one that a promotion takes.

    Raises:
        NotFound: if there is no such environment.
        Conflict: if nobody asks for approvals there.
        Forbidden: if the caller pushed the version, and another's word is asked for.
    """
    gated = await judge(change.connection, version, environment, precision, change.now)
    wanted = gated.policy.approval if gated is not None else None
    if gated is None or wanted is None:
        raise Conflict(f"Nobody asks for approvals in {environment}.", code="no_approval_needed", param="environment")
    if wanted.by_other and change.caller.name == version.created_by:
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
            approvals.c.principal == change.caller.name,
            approvals.c.withdrawn_at.is_(None),
        )
        .values(withdrawn_at=change.now)
    )
    return taken.rowcount
