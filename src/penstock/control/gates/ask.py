"""Gates as they are asked: the environment's policy, the evidence out of the tables, the judgement, and what it lacks put in the queue."""

from typing import Any

import msgspec
from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.deploy.rows import live_revision
from penstock.control.gates.evaluations import UNDER_WAY, Measured, ask, bound_to, load_items
from penstock.control.gates.suites import find_suite
from penstock.control.specs.resources import EnvironmentSpec
from penstock.control.versions.find import find_version
from penstock.control.versions.pushers import pusher_of
from penstock.control.versions.signatures import signers_of
from penstock.core.digests import sha256_digest
from penstock.core.errors import Conflict, NotFound
from penstock.core.references import Reference, parse_reference
from penstock.engine.identity import engine_digest
from penstock.registry.card import missing_from, parse_card
from penstock.registry.gates import (
    Approval,
    Evidence,
    Found,
    GatePolicy,
    Judgement,
    Subject,
    SuiteGate,
    judge_gates,
)
from penstock.registry.manifest import read_manifest
from penstock.registry.scan import Finding, licence_of
from penstock.registry.suites import parse_suite
from penstock.store.schema import builds, principals, resources
from penstock.store.schema_gates import approvals, evaluations


class Gated(msgspec.Struct, frozen=True, kw_only=True):
    """A version on its way into an environment: the policy, who it is, and what is known of it."""

    policy: GatePolicy
    subject: Subject
    judgement: Judgement
    evidence: Evidence


async def gates_of(connection: AsyncConnection, environment: str) -> GatePolicy | None:
    """What `environment` asks for; None: nothing.

    Raises:
        NotFound: if there is no such environment.
    """
    statement = select(resources.c.spec).where(resources.c.kind == "Environment", resources.c.name == environment)
    spec = (await connection.execute(statement)).scalar_one_or_none()
    if spec is None:
        raise NotFound(f"There is no environment {environment!r}.", param="environment")
    gates = EnvironmentSpec.model_validate(spec).gates
    return gates.policy() if gates is not None else None


async def judge(
    connection: AsyncConnection, version: Any, environment: str, precision: str | None, now: float
) -> Gated | None:
    """What the gates of `environment` say of the version whose row is given; None if it has none. What was in date at `now` is in date.

    Raises:
        NotFound: if there is no such environment, or a suite or a judge that its policy names is not registered.
    """
    policy = await gates_of(connection, environment)
    if policy is None:
        return None
    precision = precision or await _as_now(connection, environment, version)
    subject = Subject(
        reference=f"{version.model}:{version.label}",
        digest=version.digest,
        environment=environment,
        pushed_by=version.created_by,
        pusher=await pusher_of(connection, version),
        pushed_with=version.pushed_with,
    )
    evidence = await _evidence(connection, policy, version, environment, precision)
    judgement = judge_gates(policy, subject, evidence, now)
    return Gated(policy=policy, subject=subject, judgement=judgement, evidence=evidence)


async def run_gates(
    change: Change, version: Any, environment: str, precision: str | None, findings: list[Finding] | None
) -> list[str]:
    """Put in the queue what the gates of `environment` lack of evaluations, the incumbent's too; of a scan `findings` are kept, unless None was made. Gives their ids.

    Raises:
        NotFound: as `judge`.
        Conflict: if the version has no build to evaluate.
    """
    connection = change.connection
    gated = await judge(connection, version, environment, precision, change.now)
    if gated is None:
        return []
    asked: list[str] = []
    missing = {one.gate for one in gated.judgement.open if one.state == "missing"}
    if "scan" in missing and findings is not None:
        asked.append(await keep_scan(change, version, findings))
    build = await build_for(connection, environment, version, precision)
    if "smoke" in missing and gated.policy.smoke is not None:
        asked.append((await _ask(change, _smoke(gated.policy, version, build))).id)
    incumbent = await _incumbent(connection, environment, version, build)
    for gate in gated.policy.suites_of(version.model):
        if f"suite {gate.suite}" not in missing:
            continue
        asked.append((await _ask(change, await measured_suite(connection, gate, version, build))).id)
        if incumbent is not None:
            other = await measured_suite(connection, gate, incumbent[0], incumbent[1])
            asked.append((await _ask(change, other)).id)
    return list(dict.fromkeys(asked))


async def _ask(change: Change, measured: Measured) -> Row[Any]:
    return await ask(change, measured, engine=engine_digest())


async def keep_scan(change: Change, version: Any, findings: list[Finding]) -> str:
    """Keep what a scan of the version found, as an evaluation; its id."""
    row = await ask(change, _scanned(version), engine="", again=True)
    words = " ".join(f"{one.path + ': ' if one.path else ''}{one.words}." for one in findings)
    await change.connection.execute(
        update(evaluations)
        .where(evaluations.c.id == row.id)
        .values(
            state="done",
            passed=not any(one.wrong for one in findings),
            detail=words or "No pickle, no code, sound headers, and a licence is told.",
            done=1,
            started_at=change.now,
            finished_at=change.now,
            result={"findings": [msgspec.to_builtins(one) for one in findings]},
        )
    )
    identity: str = row.id
    return identity


async def build_of(connection: AsyncConnection, version: Any, precision: str | None) -> Any:
    """The row of the build that is evaluated: in `precision`, else int8, else the first.

    Raises:
        Conflict: if there is none.
    """
    statement = select(builds).where(builds.c.model == version.model, builds.c.label == version.label)
    found = {row.precision: row for row in await connection.execute(statement.order_by(builds.c.precision))}
    if precision is not None and precision not in found:
        found = {}
    if not found:
        raise Conflict(
            f"{version.model}:{version.label} has no build{f' in {precision}' if precision else ''} to evaluate.",
            code="build_missing",
            param="precision",
        )
    return found[precision] if precision is not None else found.get("int8") or next(iter(found.values()))


async def build_for(connection: AsyncConnection, environment: str, version: Any, precision: str | None) -> Any:
    """The row of the build that `environment` is to run: in `precision`, else as runs there now, else int8, else the first.

    Raises:
        Conflict: if there is none.
    """
    return await build_of(connection, version, precision or await _as_now(connection, environment, version))


async def newest_scan(connection: AsyncConnection, version: Any) -> Found | None:
    """What the newest scan of the version found; None: there was none."""
    return await _newest(connection, _scanned(version), "scan", {})


async def _as_now(connection: AsyncConnection, environment: str, version: Any) -> str | None:
    """The precision that a promotion takes if none is said: what runs there now, if the version has a build in it."""
    live = await live_revision(connection, environment, version.model)
    now = live.config.get("precision") if live is not None else None
    mine = select(builds.c.precision).where(
        builds.c.model == version.model, builds.c.label == version.label, builds.c.precision == now
    )
    found: str | None = (await connection.execute(mine)).scalar_one_or_none()
    return found


def _scanned(version: Any) -> Measured:
    """A scan reads the files, which the digest names, and the licence that card and metadata tell now: another licence, and it was not done."""
    card = parse_card(version.card) if version.card else None
    licence = licence_of(read_manifest(version.manifest, version.digest), card, version.metadata)
    return Measured(
        kind="scan",
        model=version.model,
        label=version.label,
        digest=version.digest,
        precision="",
        build=version.digest,
        settings={"licence": licence},
    )


def _smoke(policy: GatePolicy, version: Any, build: Any) -> Measured:
    assert policy.smoke is not None
    return Measured(
        kind="smoke",
        model=version.model,
        label=version.label,
        digest=version.digest,
        precision=build.precision,
        build=build.digest,
        settings={"prompts": list(policy.smoke.prompts)},
        total=len(policy.smoke.prompts),
    )


async def measured_suite(connection: AsyncConnection, gate: SuiteGate, version: Any, build: Any) -> Measured:
    """What is measured of a build for `gate`.

    Raises:
        NotFound: if the suite or the judge is not registered.
    """
    row = await find_suite(connection, gate.suite)
    settings: dict[str, Any] = {"seed": gate.seed}
    if gate.judge is not None:
        judge_row = await find_version(connection, parse_reference(gate.judge))
        settings["judge"] = f"{judge_row.model}@{judge_row.digest}"
    return Measured(
        kind="suite",
        model=version.model,
        label=version.label,
        digest=version.digest,
        precision=build.precision,
        build=build.digest,
        suite=row.name,
        suite_digest=row.digest,
        settings=settings,
        total=len(parse_suite(row.lines).items),
    )


async def _incumbent(connection: AsyncConnection, environment: str, version: Any, build: Any) -> tuple[Any, Any] | None:
    """The rows of version and build that are live there, if the build is another than `build` of `version`."""
    live = await live_revision(connection, environment, version.model)
    if live is None:
        return None
    other = await find_version(connection, Reference(name=version.model, label=live.label))
    precision = live.config.get("precision", "int8")
    mine = select(builds).where(
        builds.c.model == other.model, builds.c.label == other.label, builds.c.precision == precision
    )
    runs = (await connection.execute(mine)).one_or_none()
    return None if runs is None or runs.digest == build.digest else (other, runs)


async def _evidence(
    connection: AsyncConnection, policy: GatePolicy, version: Any, environment: str, precision: str | None
) -> Evidence:
    try:
        build = await build_of(connection, version, precision)
    except Conflict:
        build = None
    incumbent = None
    if policy.suites and build is not None:
        incumbent = await _incumbent(connection, environment, version, build)
    under_way: dict[str, str] = {}
    scanned = smoke = None
    if policy.scan:
        scanned = await _newest(connection, _scanned(version), "scan", under_way)
    if policy.smoke is not None and build is not None:
        smoke = await _newest(connection, _smoke(policy, version, build), "smoke", under_way)
    suites: dict[str, Found] = {}
    others: dict[str, Found] = {}
    for gate in policy.suites_of(version.model) if build is not None else ():
        found = await _newest(connection, await measured_suite(connection, gate, version, build), gate.suite, under_way)
        if found is not None:
            suites[gate.suite] = found
        if incumbent is not None:
            measured = await measured_suite(connection, gate, *incumbent)
            found = await _newest(connection, measured, f"{gate.suite} incumbent", under_way)
            if found is not None:
                others[gate.suite] = found
    return Evidence(
        scan=scanned,
        smoke=smoke,
        suites=suites,
        incumbents=others,
        under_way=under_way,
        incumbent=_name(incumbent, version) if incumbent is not None else "",
        signers=await _signers(connection, version, build),
        card_missing=missing_from(parse_card(version.card)) if version.card else ("the card itself: README.md",),
        approvals=await standing_approvals(connection, environment, version.model, version.digest),
    )


async def _signers(connection: AsyncConnection, version: Any, build: Any) -> tuple[str, ...]:
    """Who has signed the version; of a build that was made of it here, who has signed both."""
    found = await signers_of(connection, version.digest)
    if build is None or build.manifest is None:
        return found
    own = await signers_of(connection, sha256_digest(build.manifest.encode()))
    return tuple(name for name in found if name in own)


def _name(incumbent: tuple[Any, Any], version: Any) -> str:
    """What people are told of the incumbent; of another build of the same version its precision too."""
    other, build = incumbent
    name = f"{other.model}:{other.label}"
    return f"{name} in {build.precision}" if other.label == version.label else name


async def _newest(
    connection: AsyncConnection, measured: Measured, name: str, under_way: dict[str, str]
) -> Found | None:
    """The newest evaluation of this that is done; of those that are not, `under_way` is told under `name`."""
    statement = (
        select(evaluations)
        .where(bound_to(measured, engine_digest()), evaluations.c.state.in_(("done", "failed", *UNDER_WAY)))
        .order_by(evaluations.c.created_at.desc(), evaluations.c.id.desc())
    )
    for row in (await connection.execute(statement.limit(20))).all():
        if row.state == "done":
            items = await load_items(connection, row) if row.kind == "suite" else ()
            return Found(id=row.id, finished_at=row.finished_at, passed=row.passed, words=row.detail, items=items)
        how = {"queued": "waits", "running": f"runs, {row.done} of {row.total}"}.get(row.state, f"failed: {row.detail}")
        under_way.setdefault(name, f"The evaluation {row.id} of {row.model}:{row.label} {how}")
    return None


async def standing_approvals(
    connection: AsyncConnection, environment: str, model: str, digest: str
) -> tuple[Approval, ...]:
    """The approvals of a version that nobody has taken back."""
    found = await connection.execute(
        select(approvals, principals.c.disabled_at)
        .select_from(
            approvals.outerjoin(principals, (principals.c.id == approvals.c.person) & (approvals.c.person != ""))
        )
        .where(
            approvals.c.environment == environment,
            approvals.c.model == model,
            approvals.c.digest == digest,
            approvals.c.withdrawn_at.is_(None),
        )
        .order_by(approvals.c.at)
    )
    return tuple(
        Approval(
            principal=row.principal,
            person=row.person,
            at=row.at,
            disabled=row.disabled_at is not None,
            policy_hash=row.policy_hash,
            results_hash=row.results_hash,
        )
        for row in found
    )
