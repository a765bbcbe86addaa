"""What comes of gates where a version is to be let in: it passes, or is refused, or somebody overrides; and the record of it."""

from typing import Any

import msgspec
from sqlalchemy import insert, select, update

from penstock.access.principals import allows
from penstock.control.context import Change
from penstock.control.gates.ask import Gated, judge
from penstock.control.versions.contents import check_may_run
from penstock.core.errors import Conflict, Forbidden
from penstock.registry.gates import Outcome, refusal
from penstock.store.schema_gates import judgements


async def pass_gates(change: Change, version: Any, environment: str, precision: str, override: str) -> Gated | None:
    """See that the version passes the gates of `environment`; what `keep_judgement` then keeps.

    Args:
        change: under way.
        version: its row.
        environment: where it is to run.
        precision: of the build that is to run.
        override: why an administrator lets it in though gates are not passed; "": nobody does.

    Raises:
        Conflict: naming each gate that is not passed, with its figures and what would supply it; or as `check_may_run`, which nobody overrides.
        Forbidden: if somebody else than an administrator overrides.
    """
    await check_may_run(change.connection, version, environment)
    gated = await judge(change.connection, version, environment, precision, change.now)
    _check_may_override(change, override)
    if gated is None or not gated.judgement.open or override:
        return gated
    raise _not_passed(gated, gated.judgement.open)


def reason_of(reason: str, gated: Gated | None, override: str) -> str:
    """Why a revision was made, for its history: what was overridden is told too."""
    if gated is None or not override or not gated.judgement.open:
        return reason
    names = ", ".join(one.gate for one in gated.judgement.open)
    return f"{reason} Gates overridden ({names}): {override}".strip()


async def pass_again(change: Change, version: Any, revision: Any, precision: str, override: str) -> None:
    """See that the version passes the gates of its canary's environment still, now that it is to have all of the traffic, and keep what they say with `revision`.

    What was in date when the canary began counts as in date; what was overridden then is asked no more.

    Raises:
        Conflict, Forbidden: as `pass_gates`.
    """
    await check_may_run(change.connection, version, revision.environment)
    gated = await judge(change.connection, version, revision.environment, precision, revision.created_at)
    if gated is None:
        return
    mine = judgements.c.revision == revision.id
    before = (await change.connection.execute(select(judgements).where(mine))).one_or_none()
    forgiven = (
        {one["gate"] for one in before.outcomes if one["state"] != "passed"}
        if before is not None and before.overridden_by
        else set()
    )
    refused = tuple(one for one in gated.judgement.open if one.gate not in forgiven)
    if refused:
        _check_may_override(change, override)
        if not override:
            raise _not_passed(gated, refused)
    values = {
        "policy_hash": gated.judgement.policy_hash,
        "outcomes": msgspec.to_builtins(gated.judgement.outcomes),
        "at": change.now,
    }
    if refused:
        values |= {"overridden_by": change.caller.name, "reason": override}
        await _audit_override(change, gated, revision.id, override)
    if before is None:
        values = {"overridden_by": "", "reason": ""} | values
        await change.connection.execute(insert(judgements).values(revision=revision.id, **values))
    else:
        await change.connection.execute(update(judgements).where(mine).values(**values))


async def tell_passed(change: Change, gated: Gated | None, where: str, override: str) -> None:
    """An audit event of a version that passed its gates, or was let in though it did not, into what has no revision to keep them with."""
    if gated is None:
        return
    if override and gated.judgement.open:
        await _audit_override(change, gated, "", override)
    await change.audit(
        "gates.pass",
        f"{gated.subject.environment}/{gated.subject.reference}",
        where=where,
        digest=gated.subject.digest,
        policy=gated.judgement.policy_hash,
        results=gated.judgement.results_hash,
        overridden=[one.gate for one in gated.judgement.open],
    )


def _check_may_override(change: Change, override: str) -> None:
    if override and not allows(change.caller.roles, "gates:override"):
        raise Forbidden(f"{change.caller.name} may not override gates: administrators may.", code="permission_denied")


def _not_passed(gated: Gated, refused: tuple[Outcome, ...]) -> Conflict:
    return Conflict(
        refusal(refused, gated.subject),
        code="gates_not_passed",
        param="label",
        hint=f"penstock gates show {gated.subject.reference} --for {gated.subject.environment} shows every gate.",
    )


async def _audit_override(change: Change, gated: Gated, revision: str, override: str) -> None:
    await change.audit(
        "gates.override",
        f"{gated.subject.environment}/{gated.subject.reference}",
        revision=revision,
        reason=override,
        gates=[msgspec.to_builtins(one) for one in gated.judgement.open],
    )


async def keep_judgement(change: Change, revision: str, gated: Gated | None, override: str) -> None:
    """Keep with the revision what its gates said, and who overrode them."""
    if gated is None:
        return
    outcomes = msgspec.to_builtins(gated.judgement.outcomes)
    overridden = bool(override and gated.judgement.open)
    await change.connection.execute(
        insert(judgements).values(
            revision=revision,
            policy_hash=gated.judgement.policy_hash,
            outcomes=outcomes,
            overridden_by=change.caller.name if overridden else "",
            reason=override if overridden else "",
            at=change.now,
        )
    )
    if overridden:
        await _audit_override(change, gated, revision, override)
