"""/api/v1/gates and /approvals: what an environment asks of a version, and who approves it; /signers and signatures."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from pydantic import Field
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.access.principals import Principal, Role
from penstock.control.auth import ControlPart, needs
from penstock.control.gates.approvals import approve, withdraw
from penstock.control.gates.ask import gates_of, judge, run_gates
from penstock.control.gates.evaluations import UNDER_WAY
from penstock.control.specs.resources import Name, Precision, Spec
from penstock.control.versions.find import find_version, reference_in
from penstock.control.versions.scan import scan
from penstock.control.versions.signatures import (
    Allowed,
    bring_signature,
    change_signer,
    create_signer,
    find_signer,
    owner_name,
    revoke_signer,
    sign,
    signable,
    valid_signatures,
)
from penstock.store.schema_gates import approvals, evaluations, judgements, signers

router = APIRouter(tags=["gates"])
Reader = Annotated[Principal, Depends(needs("models:read"))]
Pusher = Annotated[Principal, Depends(needs("models:write"))]
Writer = Annotated[Principal, Depends(needs("deployments:write"))]
Keeper = Annotated[Principal, Depends(needs("keys:write"))]


class GatesBody(Spec):
    """The body of POST /gates/run."""

    model: Name
    label: str = Field(description="A label, a digest, or @ENVIRONMENT: what that environment serves.")
    environment: Name = "production"
    precision: Precision | None = Field(
        default=None, description="Of the build; left out: what runs there now, else int8, if there is one."
    )


class ApprovalBody(Spec):
    """The body of POST /approvals and /approvals/withdraw."""

    model: Name
    label: str = Field(description="A label, or a digest.")
    environment: Name = "production"
    precision: Precision | None = Field(
        default=None, description="Of the build; left out: what runs there now, else int8, if there is one."
    )
    reason: str = Field(default="", max_length=4096)


class SignerBody(Spec):
    """The body of POST /signers."""

    name: Name
    public: str | None = Field(
        default=None,
        max_length=64,
        description="Public key, 64 hexadecimal digits, of a signer whose private half is elsewhere; left out: a new pair is made.",
    )
    owner: Name | None = Field(
        default=None, description="Principal that signs with it; left out: the caller's, unless `roles` are named."
    )
    roles: list[Role] = Field(default=[], description="Whose holders sign with it, too.")


class ChangeSignerBody(Spec):
    """The body of POST /signers/{name}/change."""

    owner: Name | None = Field(default=None, description="Principal that signs with it; left out: nobody's own.")
    roles: list[Role] = Field(default=[], description="Whose holders sign with it, too.")


class RevokeBody(Spec):
    """The body of POST /signers/{name}/revoke."""

    reason: str = Field(min_length=1, max_length=4096)


class SignBody(Spec):
    """The body of POST /models/{name}/versions/{label}/signatures."""

    signer: Name
    precision: Precision | None = Field(
        default=None, description="Of a build that was made here, which is signed by itself; left out: the version."
    )
    envelope: str | None = Field(
        default=None, max_length=1 << 16, description="A signature that it made elsewhere; left out: it signs now."
    )


async def _told(
    connection: AsyncConnection, version: Any, environment: str, precision: str | None, now: float
) -> dict[str, Any]:
    gated = await judge(connection, version, environment, precision, now)
    waiting = await connection.execute(
        select(evaluations.c.id).where(evaluations.c.model == version.model, evaluations.c.state.in_(UNDER_WAY))
    )
    told = {
        "model": version.model,
        "label": version.label,
        "digest": version.digest,
        "environment": environment,
        "under_way": list(waiting.scalars()),
    }
    if gated is None:
        return told | {"declared": False, "passed": True, "policy_hash": None, "results_hash": None, "outcomes": []}
    return told | {
        "declared": True,
        "passed": not gated.judgement.open,
        "policy_hash": gated.judgement.policy_hash,
        "results_hash": gated.judgement.results_hash,
        "outcomes": msgspec.to_builtins(gated.judgement.outcomes),
    }


@router.get("/gates")
async def show_gates(
    control: ControlPart,
    _who: Reader,
    model: str,
    label: str,
    environment: str = "production",
    precision: Precision | None = None,
) -> dict[str, Any]:
    """Each gate of an environment for a version: passed, failed or missing, with its figures and what would supply it."""
    async with control.database.read() as connection:
        version = await find_version(connection, reference_in(model, label))
        return await _told(connection, version, environment, precision, control.clock())


@router.post("/gates/run", status_code=201)
async def run(body: GatesBody, control: ControlPart, who: Pusher) -> dict[str, Any]:
    """Scan, and put in the queue, what the gates lack of evaluations: of the version, and of what is live. `asked` are their ids."""
    async with control.database.read() as connection:
        version = await find_version(connection, reference_in(body.model, body.label))
        policy = await gates_of(connection, body.environment)
    findings = await scan(control, version) if policy is not None and policy.scan else None
    async with control.deed(who) as change:
        asked = await run_gates(change, version, body.environment, body.precision, findings)
        told = await _told(change.connection, version, body.environment, body.precision, change.now)
    return told | {"asked": asked}


@router.get("/approvals")
async def list_approvals(
    control: ControlPart, _who: Reader, model: str | None = None, environment: str | None = None
) -> list[dict[str, Any]]:
    """Approvals, newest first, those that were taken back too."""
    statement = select(approvals).order_by(approvals.c.at.desc(), approvals.c.id.desc())
    for column, value in ((approvals.c.model, model), (approvals.c.environment, environment)):
        if value is not None:
            statement = statement.where(column == value)
    async with control.database.read() as connection:
        return [_row(approvals, row) for row in await connection.execute(statement)]


@router.post("/approvals", status_code=201)
async def add_approval(body: ApprovalBody, control: ControlPart, who: Writer) -> dict[str, Any]:
    """Approve a version for an environment, with the results that its gates have now."""
    async with control.deed(who) as change:
        version = await find_version(change.connection, reference_in(body.model, body.label))
        return _row(approvals, await approve(change, version, body.environment, body.reason, body.precision))


@router.post("/approvals/withdraw")
async def withdraw_approval(body: ApprovalBody, control: ControlPart, who: Writer) -> list[dict[str, Any]]:
    """Take one's approval back. Gives the approvals of the model there."""
    async with control.deed(who) as change:
        version = await find_version(change.connection, reference_in(body.model, body.label))
        await withdraw(change, version, body.environment, body.reason)
    return await list_approvals(control, who, body.model, body.environment)


@router.get("/revisions/{identity}/gates")
async def gates_of_revision(identity: str, control: ControlPart, _who: Reader) -> dict[str, Any]:
    """What the gates said when a revision was made, and who overrode them; empty where none were declared."""
    async with control.database.read() as connection:
        statement = select(judgements).where(judgements.c.revision == identity)
        row = (await connection.execute(statement)).one_or_none()
    return _row(judgements, row) if row is not None else {}


# -- signers and signatures ----------------------------------------------------------------------------------------------


@router.get("/signers")
async def list_signers(control: ControlPart, _who: Reader) -> list[dict[str, Any]]:
    """All signers, those that are revoked too."""
    async with control.database.read() as connection:
        rows = (await connection.execute(select(signers).order_by(signers.c.name))).all()
        return [await _signer(connection, row) for row in rows]


@router.post("/signers", status_code=201)
async def add_signer(body: SignerBody, control: ControlPart, who: Keeper) -> dict[str, Any]:
    """A new signer. The private half of its key never leaves control."""
    async with control.deed(who) as change:
        allowed = Allowed(owner=body.owner, roles=tuple(body.roles))
        row = await create_signer(control, change, body.name, body.public, allowed)
        return await _signer(change.connection, row)


@router.post("/signers/{name}/change")
async def say_who_signs(name: str, body: ChangeSignerBody, control: ControlPart, who: Keeper) -> dict[str, Any]:
    """Say anew who may sign with a signer; what it has signed stands."""
    async with control.deed(who) as change:
        row = await change_signer(change, name, Allowed(owner=body.owner, roles=tuple(body.roles)))
        return await _signer(change.connection, row)


@router.post("/signers/{name}/revoke")
async def revoke(name: str, body: RevokeBody, control: ControlPart, who: Keeper) -> dict[str, Any]:
    """Trust a signer no more."""
    async with control.deed(who) as change:
        await revoke_signer(change, name, body.reason)
        return await _signer(change.connection, await find_signer(change.connection, name))


@router.get("/models/{name}/versions/{label}/signatures")
async def signatures_of(
    name: str, label: str, control: ControlPart, _who: Reader, precision: Precision | None = None
) -> list[dict[str, Any]]:
    """Who has signed a version, or with `precision` the build that was made of it: every signature that stands, checked now."""
    async with control.database.read() as connection:
        version = await find_version(connection, reference_in(name, label))
        subject = await signable(connection, version, precision)
        return _signatures(await valid_signatures(connection, subject.digest))


@router.post("/models/{name}/versions/{label}/signatures", status_code=201)
async def add_signature(
    name: str, label: str, body: SignBody, control: ControlPart, who: Writer
) -> list[dict[str, Any]]:
    """Have a signer vouch for a version, or for a build that was made of it. Gives all signatures that stand."""
    async with control.deed(who) as change:
        version = await find_version(change.connection, reference_in(name, label))
        subject = await signable(change.connection, version, body.precision)
        if body.envelope is None:
            await sign(control, change, subject, body.signer)
        else:
            await bring_signature(change, subject, body.signer, body.envelope)
        return _signatures(await valid_signatures(change.connection, subject.digest))


def _signatures(found: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    return [{"signer": name, "public": public, "envelope": envelope} for name, public, envelope in found]


async def _signer(connection: AsyncConnection, row: Row[Any]) -> dict[str, Any]:
    told = _row(signers, row)
    shown = {name: value for name, value in told.items() if name != "sealed"} | {"signs_here": bool(row.sealed)}
    return shown | {"owner": await owner_name(connection, row)}


def _row(table: Any, row: Row[Any]) -> dict[str, Any]:
    return {name: row._mapping[name] for name in table.c.keys()}  # noqa: SLF001, SIM118 - public, by its documentation
