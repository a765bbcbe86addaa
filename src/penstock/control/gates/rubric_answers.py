"""Signed answers of people to the tests of readiness, and the score of a version by evidence and answers."""

from typing import Any

import msgspec
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change, Control
from penstock.control.gates.rubric_evidence import find_evidence
from penstock.control.versions.signatures import private_half
from penstock.core.digests import sha256_digest
from penstock.core.errors import BadRequest, Damaged
from penstock.registry.rubric import TESTS, Answer, Readiness, score
from penstock.registry.signing import read_envelope, sign_version
from penstock.store.schema_gates import signers
from penstock.store.schema_versions import readiness_answers

_IDS = frozenset(test.id for test in TESTS)


async def give_answer(control: Control, change: Change, version: Any, test: str, text: str, signer: str) -> None:
    """Keep the caller's word that `test` was done by hand for `version` (a row), signed by `signer`.

    Raises:
        BadRequest: if there is no such test.
        NotFound: if there is no such signer.
        Forbidden: if the caller may not sign with it.
        Conflict: if the signer is revoked, or its private half is not here.
    """
    if test not in _IDS:
        raise BadRequest(f"{test!r} is no test of readiness: {', '.join(sorted(_IDS))}.", param="test")
    _, seed = await private_half(control, change, signer)
    digest = _digest(version.digest, test, text, change.caller.name, change.now)
    envelope = sign_version(
        seed, digest=digest, name=f"readiness {version.model}:{version.label} {test}", at=change.now
    )
    mine = (readiness_answers.c.digest == version.digest) & (readiness_answers.c.test == test)
    last = await change.connection.execute(select(func.coalesce(func.max(readiness_answers.c.number), 0)).where(mine))
    await change.connection.execute(
        insert(readiness_answers).values(
            digest=version.digest,
            test=test,
            number=last.scalar_one() + 1,
            text=text,
            principal=change.caller.name,
            signer=signer,
            envelope=envelope,
            at=change.now,
        )
    )
    await change.audit(
        "readiness.answer", f"{version.model}:{version.label}", digest=version.digest, test=test, signer=signer
    )


async def readiness_of(connection: AsyncConnection, version: Any, environment: str) -> Readiness:
    """The score of `version` (a row) and its deployment in `environment`. Answers whose signature is not right, or whose signer is revoked, do not count."""
    return score(
        await find_evidence(connection, version, environment),
        await _answers(connection, version.digest),
        model=version.model,
        label=version.label,
        environment=environment,
    )


async def _answers(connection: AsyncConnection, digest: str) -> dict[str, Answer]:
    rows = await connection.execute(
        select(readiness_answers, signers.c.public)
        .join(signers, signers.c.name == readiness_answers.c.signer)
        .where(readiness_answers.c.digest == digest, signers.c.revoked_at.is_(None))
        .order_by(readiness_answers.c.number)
    )
    found = {}
    for row in rows:
        try:
            vouched = read_envelope(row.envelope, row.public)
        except Damaged:
            continue
        if vouched.digest == _digest(digest, row.test, row.text, row.principal, row.at):
            found[row.test] = Answer(text=row.text, principal=row.principal, signer=row.signer, at=row.at)
    return found


def _digest(version: str, test: str, text: str, principal: str, at: float) -> str:
    answer = {"version": version, "test": test, "text": text, "principal": principal, "at": at}
    return sha256_digest(msgspec.json.encode(answer, order="sorted"))
