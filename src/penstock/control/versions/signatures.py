"""Signers and what they have signed. Private halves are kept sealed, and opened for one signature."""

from typing import Any

import msgspec
from blake3 import blake3
from sqlalchemy import Row, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change, Control
from penstock.control.versions.build_jobs import made_build
from penstock.core.digests import sha256_digest
from penstock.core.errors import BadRequest, Conflict, Damaged, Forbidden, NotFound, Unavailable
from penstock.core.references import check_name
from penstock.journal.masterkey import Wrapping, WrongKey
from penstock.registry.signing import check_public, public_of, read_envelope, sign_version
from penstock.store.schema import principals
from penstock.store.schema_gates import signatures, signers


class Signable(msgspec.Struct, frozen=True, kw_only=True):
    """What is vouched for: a version, or a build that was made of one (`label` then names its folder too)."""

    model: str
    label: str
    digest: str


async def signable(connection: AsyncConnection, version: Any, precision: str | None) -> Signable:
    """The version whose row is given; with `precision` the build that was made of it.

    Raises:
        Conflict: if no such build was made here: those that a version brought are signed with it.
    """
    if precision is None:
        return Signable(model=version.model, label=version.label, digest=version.digest)
    build = await made_build(connection, version, precision)
    digest = sha256_digest(build.manifest.encode())
    return Signable(model=version.model, label=f"{version.label}/{build.folder}", digest=digest)


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """Who may sign with a signer: the principal `owner` (a name), and whoever has one of `roles`."""

    owner: str | None = None
    roles: tuple[str, ...] = ()


async def create_signer(control: Control, change: Change, name: str, public: str | None, allowed: Allowed) -> Row[Any]:
    """A new signer: with a key pair of its own, or one whose private half is elsewhere and whose `public` half is trusted from now on.

    Where `allowed` says nothing it is the caller's own.

    Raises:
        BadRequest: if the name or the key is none, or nobody could sign with it.
        NotFound: if there is no such owner.
        Conflict: if there is a signer of that name or key.
        Unavailable: if there is nothing to seal a private half under.
    """
    check_name(name)
    owner = await _owner(change, allowed)
    if public is None and not owner and not allowed.roles:
        raise BadRequest(
            f"Nobody could sign with {name}: your key belongs to no principal.",
            param="owner",
            hint="Say who may: --owner PRINCIPAL or --role ROLE.",
        )
    sealed = ""
    if public is None:
        seed = control.entropy(32)
        public = public_of(seed)
        sealed = _sealing(control).wrap(seed, _about(name)).hex()
    public = check_public(public)
    taken = (
        (
            await change.connection.execute(
                select(signers.c.name).where((signers.c.name == name) | (signers.c.public == public))
            )
        )
        .scalars()
        .first()
    )
    if taken is not None:
        raise Conflict(f"There is a signer {taken} already with that name or key.", code="signer_taken", param="name")
    await change.connection.execute(
        insert(signers).values(
            name=name,
            public=public,
            sealed=sealed,
            owner=owner,
            roles=list(allowed.roles),
            created_at=change.now,
            created_by=change.caller.name,
        )
    )
    await change.audit(
        "signer.create", name, public=public, held_here=bool(sealed), owner=owner, roles=list(allowed.roles)
    )
    return await find_signer(change.connection, name)


async def change_signer(change: Change, name: str, allowed: Allowed) -> Row[Any]:
    """Say anew who may sign with the signer; what it has signed stands.

    Raises:
        NotFound: if there is no such signer or owner.
        BadRequest: if nobody could sign with it.
    """
    await find_signer(change.connection, name)
    if allowed.owner is None and not allowed.roles:
        raise BadRequest(f"Nobody could sign with {name}: name an owner, or roles.", param="owner")
    owner = await _owner(change, allowed) if allowed.owner is not None else ""
    await change.connection.execute(
        update(signers).where(signers.c.name == name).values(owner=owner, roles=list(allowed.roles))
    )
    await change.audit("signer.change", name, owner=owner, roles=list(allowed.roles))
    return await find_signer(change.connection, name)


async def _owner(change: Change, allowed: Allowed) -> str:
    """The id of the principal that `allowed` names; else the caller's, unless roles are named; "": nobody's."""
    if allowed.owner is None:
        return "" if allowed.roles else change.caller.person
    statement = select(principals.c.id).where(principals.c.name == allowed.owner, principals.c.disabled_at.is_(None))
    found: str | None = (await change.connection.execute(statement)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"There is no principal {allowed.owner!r}.", param="owner")
    return found


async def owner_name(connection: AsyncConnection, signer: Row[Any]) -> str | None:
    """What the principal that a signer belongs to is called; None: it belongs to nobody."""
    if not signer.owner:
        return None
    statement = select(principals.c.name).where(principals.c.id == signer.owner)
    return (await connection.execute(statement)).scalar_one_or_none()


async def find_signer(connection: AsyncConnection, name: str) -> Row[Any]:
    """The signer `name`.

    Raises:
        NotFound: if there is none.
    """
    row = (await connection.execute(select(signers).where(signers.c.name == name))).one_or_none()
    if row is None:
        raise NotFound(f"There is no signer {name!r}.", param="signer", hint="penstock signers create NAME makes one.")
    return row


async def revoke_signer(change: Change, name: str, reason: str) -> None:
    """Trust the signer no more: nothing that it ever signed counts as signed by it.

    Raises:
        NotFound: if there is none.
        Conflict: if it is revoked.
    """
    row = await find_signer(change.connection, name)
    if row.revoked_at is not None:
        raise Conflict(f"The signer {name} is revoked already: {row.revoked_reason}")
    await change.connection.execute(
        update(signers)
        .where(signers.c.name == name)
        .values(revoked_at=change.now, revoked_by=change.caller.name, revoked_reason=reason, sealed="")
    )
    await change.audit("signer.revoke", name, reason=reason)


async def sign(control: Control, change: Change, version: Any, name: str) -> str:
    """The envelope in which the signer `name` vouches for the version whose row is given; kept, too.

    Raises:
        NotFound: if there is no such signer.
        Forbidden: if the caller may not sign with it.
        Conflict: if it is revoked, or its private half is not here.
        Unavailable: if the private half cannot be opened.
    """
    signer, seed = await private_half(control, change, name)
    envelope = sign_version(seed, digest=version.digest, name=f"{version.model}:{version.label}", at=change.now)
    await keep_signature(change, version.digest, signer.public, envelope)
    await change.audit("version.sign", f"{version.model}:{version.label}", digest=version.digest, signer=name)
    return envelope


async def private_half(control: Control, change: Change, name: str) -> tuple[Row[Any], bytes]:
    """The signer `name` and its private half; raises as `sign` does."""
    signer = await find_signer(change.connection, name)
    caller = change.caller
    mine = bool(signer.owner) and caller.person == signer.owner
    if not mine and not set(signer.roles) & set(caller.roles):
        owner = await owner_name(change.connection, signer)
        who = [*([owner] if owner else []), *(f"the role {role}" for role in signer.roles)]
        raise Forbidden(
            f"{caller.name} may not sign as {name}: it is for {' and '.join(who) or 'nobody here'}.",
            code="not_your_signer",
            param="signer",
            hint=f"An administrator says who may: penstock signers change {name} --owner PRINCIPAL --role ROLE.",
        )
    if signer.revoked_at is not None or not signer.sealed:
        why = "is revoked" if signer.revoked_at is not None else "keeps its private half elsewhere"
        raise Conflict(f"The signer {name} {why}: it signs nothing here.", code="signer_cannot_sign", param="signer")
    try:
        return signer, _sealing(control).unwrap(bytes.fromhex(signer.sealed), _about(name))
    except WrongKey:
        raise Unavailable(
            f"The key of the signer {name} was sealed under other keys than this installation has.",
            hint="Revoke it, and create another.",
        ) from None


async def bring_signature(change: Change, version: Any, name: str, envelope: str) -> None:
    """Keep a signature that the signer `name` made elsewhere.

    Raises:
        NotFound: if there is no such signer.
        Conflict: if it is revoked.
        Damaged: if the envelope is not by its key, or about another version.
    """
    signer = await find_signer(change.connection, name)
    if signer.revoked_at is not None:
        raise Conflict(f"The signer {name} is revoked.", code="signer_cannot_sign", param="signer")
    await keep_signature(change, version.digest, signer.public, envelope)
    await change.audit(
        "version.sign", f"{version.model}:{version.label}", digest=version.digest, signer=name, brought=True
    )


async def keep_signature(change: Change, digest: str, public: str, envelope: str) -> None:
    """Keep an envelope that vouches for the version `digest`; one that is there of the same key is left.

    Raises:
        Damaged: if it is not by that key, or about another version.
    """
    vouched = read_envelope(envelope, public)
    if vouched.digest != digest:
        raise Damaged(f"The signature is of {vouched.digest}, not of {digest}.", code="bad_signature")
    insertion = postgresql.insert if change.connection.dialect.name == "postgresql" else sqlite.insert
    await change.connection.execute(
        insertion(signatures)
        .values(digest=digest, public=public, envelope=envelope, at=change.now, principal=change.caller.name)
        .on_conflict_do_nothing()
    )


async def valid_signatures(connection: AsyncConnection, digest: str) -> list[tuple[str, str, str]]:
    """Who has signed the version: name, public key and envelope of each signer that is not revoked. Every signature is checked here."""
    found = await connection.execute(
        select(signers.c.name, signers.c.public, signatures.c.envelope)
        .join(signatures, signatures.c.public == signers.c.public)
        .where(signatures.c.digest == digest, signers.c.revoked_at.is_(None))
        .order_by(signers.c.name)
    )
    valid = []
    for row in found:
        try:
            vouched = read_envelope(row.envelope, row.public)
        except Damaged:
            continue  # a row that was tampered with vouches for nothing
        if vouched.digest == digest:
            valid.append((row.name, row.public, row.envelope))
    return valid


async def signers_of(connection: AsyncConnection, digest: str) -> tuple[str, ...]:
    """The names of those who have signed the version and are not revoked."""
    return tuple(name for name, _, _ in await valid_signatures(connection, digest))


def sealing_under(secret: bytes) -> Wrapping:
    """What signers' keys are sealed under, from a secret of the installation that its master key wraps and that never changes."""
    return Wrapping(blake3(secret, derive_key_context="penstock 2026-11 signers' keys").digest())


def _sealing(control: Control) -> Wrapping:
    if control.sealing is None:
        raise Unavailable("This control has no keys to seal a signer's private half under.", code="no_sealing_key")
    return control.sealing


def _about(name: str) -> bytes:
    return b"penstock signer " + name.encode()
