"""What a version's builds cost and gain: the measurements that are asked of them, and the table that these make, with the versions distilled from it."""

from typing import Any

import msgspec
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.gates.ask import measured_suite
from penstock.control.gates.evaluations import UNDER_WAY, Measured, ask, bound_to, load_items, load_runs
from penstock.control.gates.suites import find_suite
from penstock.control.specs.resources import EnvironmentSpec
from penstock.control.versions.build_jobs import UNDER_WAY as JOBS_UNDER_WAY
from penstock.core.errors import BadRequest, NotFound
from penstock.engine.identity import engine_digest
from penstock.registry.comparison import ItemResult
from penstock.registry.gates import SuiteGate
from penstock.registry.making import WIDEST, widest
from penstock.registry.suites import Item, parse_suite
from penstock.registry.tradeoff import Quality, Speed, quality_of, speed_of
from penstock.store.schema import builds, resources, versions
from penstock.store.schema_builds import build_jobs
from penstock.store.schema_gates import evaluations
from penstock.store.schema_versions import lineage_edges

_RUNS = 5
_TOGETHER = 8
_MAX_TOKENS = 64
# What a version is asked that no suite speaks of.
_PROMPTS = (
    "Hello, can you help me?",
    "Write a short note to a colleague.",
    "What is the capital of France?",
    "Explain in two sentences how a kettle works.",
    "Once upon a time there was",
    "List three things that one needs for a picnic.",
    "How do I change a light bulb?",
    "Thank you very much.",
)


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One build that could serve.

    Attributes:
        relation: to the version that was asked about: "" (its own build), or `distilled_from`.
        build: digest; "": there is no such build.
        made: here, of the weights; else the version brought it along.
        baseline: whether the others are compared with it.
        waits: what is still missing, in words; none: all of it is measured.
    """

    version: str
    digest: str
    precision: str
    relation: str = ""
    build: str = ""
    engine: str = ""
    size: int | None = None
    made: bool = False
    baseline: bool = False
    speed: Speed | None = None
    quality: tuple[Quality, ...] = ()
    waits: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of each build of one version: its suites, and questions for the measurement of speed."""

    suites: tuple[SuiteGate, ...]
    prompts: tuple[str, ...]


async def plan_for(connection: AsyncConnection, version: Any) -> Plan:
    """The suites that any environment's gates ask of the model, and those that the version was ever asked, as far as they are registered; and what the first of them begin with."""
    found: dict[str, SuiteGate] = {}
    for spec in (await connection.execute(select(resources.c.spec).where(resources.c.kind == "Environment"))).scalars():
        gates = EnvironmentSpec.model_validate(spec).gates
        for gate in gates.policy().suites_of(version.model) if gates is not None else ():
            found.setdefault(gate.suite.partition("@")[0], gate)
    mine = select(evaluations.c.suite, evaluations.c.settings).where(
        evaluations.c.digest == version.digest, evaluations.c.kind == "suite", evaluations.c.state == "done"
    )
    for row in await connection.execute(mine.order_by(evaluations.c.created_at.desc())):
        told = row.settings
        found.setdefault(row.suite, SuiteGate(suite=row.suite, seed=told.get("seed", 1), judge=told.get("judge")))
    prompts: dict[str, None] = {}
    for name in sorted(found):
        try:
            lines = (await find_suite(connection, found[name].suite)).lines
        except NotFound:
            del found[name]
            continue
        for item in parse_suite(lines).items:
            if len(prompts) < _TOGETHER and item.answered:
                prompts.setdefault(_question(item))
    return Plan(
        suites=tuple(found[name] for name in sorted(found)),
        prompts=tuple(text for text in prompts if text) or _PROMPTS,
    )


def _question(item: Item) -> str:
    if item.messages:
        return next((one.content for one in reversed(item.messages) if one.role == "user"), "")
    return item.prompt or ""


async def ask_measurements(change: Change, version: Any, *, only: str | None = None) -> list[str]:
    """Put in the queue what is not measured yet of the version's builds, and of versions that were distilled from it; the ids of the evaluations that are to come.

    With `only`, of the build in that precision and of the one that it is compared with alone.
    """
    connection = change.connection
    plan = await plan_for(connection, version)
    own = await _builds(connection, version)
    wanted = own if only is None else {only, widest(own)} & set(own)
    asked: list[Row[Any]] = []
    subjects = [(version, own[precision]) for precision in WIDEST if precision in wanted]
    for other in [] if only is not None else await _distilled(connection, version):
        subjects += [(other, build) for build in (await _builds(connection, other)).values()]
    for subject, build in subjects:
        found = await _measured(connection, plan, subject, build)
        asked += [await ask(change, measured, engine=engine_digest()) for measured in found]
    return list(dict.fromkeys(row.id for row in asked if row.state in UNDER_WAY))


async def read_tradeoff(connection: AsyncConnection, version: Any) -> tuple[Option, ...]:
    """The version's own builds from the widest precision to the narrowest, those that it has not among them, then what was distilled from it."""
    plan = await plan_for(connection, version)
    own = await _builds(connection, version)
    first = widest(own)
    baseline: dict[str, tuple[ItemResult, ...]] = {}
    options: list[Option] = []
    for precision in WIDEST:
        if precision not in own:
            options.append(await _absent(connection, version, precision))
            continue
        option, items = await _option(connection, plan, version, own[precision], baseline)
        if precision == first:
            baseline = items
        options.append(msgspec.structs.replace(option, baseline=precision == first))
    for other in await _distilled(connection, version):
        theirs = await _builds(connection, other)
        for build in theirs.values():
            option, _ = await _option(connection, plan, other, build, baseline)
            options.append(msgspec.structs.replace(option, relation="distilled_from"))
        if not theirs:
            absent = await _absent(connection, other, "int8")
            options.append(msgspec.structs.replace(absent, relation="distilled_from"))
    return tuple(options)


async def distilled_without_builds(connection: AsyncConnection, version: Any) -> list[Any]:
    """The rows of versions that were distilled from this one and have no build."""
    return [row for row in await _distilled(connection, version) if not await _builds(connection, row)]


async def _builds(connection: AsyncConnection, version: Any) -> dict[str, Row[Any]]:
    mine = select(builds).where(builds.c.model == version.model, builds.c.label == version.label)
    found = {row.precision: row for row in await connection.execute(mine)}
    return {precision: found[precision] for precision in WIDEST if precision in found}


async def _distilled(connection: AsyncConnection, version: Any) -> list[Any]:
    edge = (lineage_edges.c.model == versions.c.model) & (lineage_edges.c.label == versions.c.label)
    statement = (
        select(versions)
        .join(lineage_edges, edge)
        .where(
            lineage_edges.c.relation == "distilled_from",
            lineage_edges.c.kind == "version",
            lineage_edges.c.target_digest == version.digest,
            versions.c.state != "deleted",
        )
        .order_by(versions.c.created_at)
    )
    return list((await connection.execute(statement)).all())


async def _measured(connection: AsyncConnection, plan: Plan, version: Any, build: Any) -> list[Measured]:
    found = [_speed(plan, version, build)]
    for gate in plan.suites:
        try:
            found.append(await measured_suite(connection, gate, version, build))
        except (NotFound, BadRequest):
            continue  # its judge is not there any more
    return found


def _speed(plan: Plan, version: Any, build: Any) -> Measured:
    return Measured(
        kind="speed",
        model=version.model,
        label=version.label,
        digest=version.digest,
        precision=build.precision,
        build=build.digest,
        settings={"seed": 1, "prompts": list(plan.prompts), "together": _TOGETHER, "max_tokens": _MAX_TOKENS},
        total=_RUNS,
    )


async def _option(
    connection: AsyncConnection, plan: Plan, version: Any, build: Any, baseline: dict[str, tuple[ItemResult, ...]]
) -> tuple[Option, dict[str, tuple[ItemResult, ...]]]:
    speed: Speed | None = None
    quality: list[Quality] = []
    waits: list[str] = []
    mine: dict[str, tuple[ItemResult, ...]] = {}
    for measured in await _measured(connection, plan, version, build):
        row = await _newest(connection, measured)
        if row is None or row.state != "done":
            waits.append(_waiting(measured, row))
        elif measured.kind == "speed":
            speed = speed_of(await load_runs(connection, row.id))
        else:
            mine[measured.suite] = await load_items(connection, row)
            quality += quality_of(measured.suite, mine[measured.suite], baseline.get(measured.suite))
    option = Option(
        version=f"{version.model}:{version.label}",
        digest=version.digest,
        precision=build.precision,
        build=build.digest,
        engine=build.engine,
        size=build.size,
        made=build.manifest is not None,
        speed=speed,
        quality=tuple(quality),
        waits=tuple(waits),
    )
    return option, mine


async def _newest(connection: AsyncConnection, measured: Measured) -> Row[Any] | None:
    """The newest evaluation of this that is done; else the newest at all."""
    mine = select(evaluations).where(bound_to(measured, engine_digest())).order_by(evaluations.c.created_at.desc())
    rows = (await connection.execute(mine.limit(20))).all()
    return next((row for row in rows if row.state == "done"), rows[0] if rows else None)


def _waiting(measured: Measured, row: Row[Any] | None) -> str:
    what = measured.suite or "speed"
    if row is None:
        return f"{what} is not measured"
    if row.state in UNDER_WAY:
        return f"{what} {'waits' if row.state == 'queued' else f'runs, {row.done} of {row.total}'}"
    return f"{what} {row.state}: {row.detail}"


async def _absent(connection: AsyncConnection, version: Any, precision: str) -> Option:
    mine = select(build_jobs).where(
        build_jobs.c.model == version.model,
        build_jobs.c.label == version.label,
        build_jobs.c.precision == precision,
    )
    row = (await connection.execute(mine.order_by(build_jobs.c.created_at.desc()).limit(1))).one_or_none()
    words = "there is no such build"
    if row is not None and row.state in JOBS_UNDER_WAY:
        words = "it waits to be built" if row.state == "queued" else "it is being built"
    elif row is not None and row.state == "failed":
        words = f"it could not be built: {row.detail}"
    return Option(
        version=f"{version.model}:{version.label}", digest=version.digest, precision=precision, waits=(words,)
    )
