"""What the system holds for the tests of readiness: gates, canaries, roll-backs, drift, evaluations, data, policies."""

from typing import Any

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.gates.evidence import read_approvals, read_judgement
from penstock.control.specs.policy import PolicySpec
from penstock.control.versions.datasets import read_custody
from penstock.control.versions.pushers import pusher_of
from penstock.core.exchange import Exchange
from penstock.registry.rubric import AUTOMATED, BY_HAND, Evidence
from penstock.store.schema import resources, revisions, versions
from penstock.store.schema_delivery import canaries
from penstock.store.schema_drift import drift_groups
from penstock.store.schema_experiments import exchanges, observations, usage_minute
from penstock.store.schema_gates import evaluations
from penstock.store.schema_versions import lineage_edges

_LOOKED_AT = 50
_INCLUSION = frozenset({"language", "group", "dialect", "gender", "age", "region"})


async def find_evidence(connection: AsyncConnection, version: Any, environment: str) -> dict[str, Evidence]:
    """By test, what is known of `version` (a row) and of its deployment in `environment`."""
    name = f"{version.model}:{version.label}"
    found = await _data(connection, version)
    found |= await _privacy(connection)
    found |= await _evaluated(connection, version)
    found |= await _deployed(connection, version, environment)
    found |= await _served(connection, name)
    training = version.metadata.get("training") or {}
    told = [field for field, there in (("code", training.get("code")), ("data", training.get("data"))) if there]
    if "seed" in (version.metadata.get("hyperparameters") or {}):
        told.append("seed")
    if told:
        points = BY_HAND if len(told) == 3 else 0.0
        found["infrastructure-1"] = Evidence(
            points=points, words=f"The metadata tell of {', '.join(told)} (of code, data, seed)."
        )
    return found


async def _data(connection: AsyncConnection, version: Any) -> dict[str, Evidence]:
    rows = await connection.execute(
        select(lineage_edges.c.target, lineage_edges.c.target_digest)
        .where(
            lineage_edges.c.model == version.model,
            lineage_edges.c.label == version.label,
            lineage_edges.c.kind == "dataset",
        )
        .distinct()
    )
    named = {row.target_digest: row.target for row in rows}
    if not named:
        return {}
    gaps = [gap for digest in named for gap in (await read_custody(connection, digest)).gaps]
    words = f"The chain of custody of {', '.join(sorted(named.values()))} is "
    words += (
        f"not whole: {gaps[0]}"
        if gaps
        else "whole: source, licence, ground and custodians are told at every registration."
    )
    return {"data-4": Evidence(points=0.0 if gaps else AUTOMATED, words=words)}


async def _privacy(connection: AsyncConnection) -> dict[str, Evidence]:
    rows = await connection.execute(select(resources.c.name, resources.c.spec).where(resources.c.kind == "Policy"))
    full = [row.name for row in rows if PolicySpec.model_validate(row.spec).capture == "full"]
    if full:
        return {"data-5": Evidence(points=0.0, words=f"The policy {full[0]} keeps content without masking it.")}
    words = (
        "No policy keeps content unmasked; what is kept is encrypted and can be forgotten, and exports need consent."
    )
    return {"data-5": Evidence(points=AUTOMATED, words=words)}


async def _evaluated(connection: AsyncConnection, version: Any) -> dict[str, Evidence]:
    mine = (evaluations.c.model == version.model) & (evaluations.c.state == "done")
    rows = (await connection.execute(select(evaluations).where(mine).order_by(evaluations.c.finished_at))).all()
    all_sizes = select(versions.c.digest, versions.c.size).where(versions.c.model == version.model)
    sizes = {row.digest: row.size for row in await connection.execute(all_sizes)}
    found: dict[str, Evidence] = {}
    suites = {row.suite_digest: row for row in rows if row.digest == version.digest and row.kind == "suite"}
    for row in rows:
        if row.digest == version.digest and row.kind == "smoke":
            found["data-7"] = Evidence(
                points=AUTOMATED if row.passed else 0.0,
                words=f"Smoke test {row.id}: {row.detail} Template and processing ran on the real engine.",
            )
        smaller = sizes.get(row.digest, version.size) < version.size
        if row.kind == "suite" and row.suite_digest in suites and smaller:
            found["model-5"] = Evidence(
                points=AUTOMATED,
                words=f"The smaller {row.model}:{row.label} answered the same suite {row.suite} ({row.id}).",
            )
    slices = sorted({f["slice"] for row in suites.values() for f in row.result.get("figures", ()) if f.get("slice")})
    if slices:
        found["model-6"] = Evidence(points=AUTOMATED, words=f"Measured by slices: {', '.join(slices[:5])}.")
    inclusive = [one for one in slices if one.partition(" ")[0] in _INCLUSION]
    if inclusive:
        found["model-7"] = Evidence(points=AUTOMATED, words=f"Measured by {', '.join(inclusive[:5])}.")
    return found


async def _deployed(connection: AsyncConnection, version: Any, environment: str) -> dict[str, Evidence]:
    here = (revisions.c.environment == environment) & (revisions.c.model == version.model)
    rows = (await connection.execute(select(revisions).where(here).order_by(revisions.c.number))).all()
    pusher = await pusher_of(connection, version)
    found: dict[str, Evidence] = {}
    for row in rows:
        if row.action == "rollback" and row.live_at is not None:
            took = row.live_at - row.created_at
            words = f"Revision {row.number} rolled back to {row.label} in {took:.1f} s."
            found["infrastructure-7"] = Evidence(points=AUTOMATED, words=words)
        if row.digest != version.digest:
            continue
        judgement = await read_judgement(connection, row.id)
        if judgement is not None:
            words = f"The gates of {environment} judged it for revision {row.number}"
            over = judgement["overridden_by"]
            words += (
                f", and {over} overrode them."
                if over
                else ": " + ", ".join(o["gate"] for o in judgement["outcomes"]) + "."
            )
            found["infrastructure-4"] = Evidence(points=0.0 if over else AUTOMATED, words=words)
        others = [
            one["principal"]
            for one in await read_approvals(connection, environment, version.digest, row.created_at)
            if one["person"] and pusher and one["person"] != pusher
        ]
        if others:
            words = f"Approved by {', '.join(others)}; pushed by {version.created_by}."
            found["model-1"] = Evidence(points=AUTOMATED, words=words)
    ids = [row.id for row in rows if row.digest == version.digest]
    tried = await connection.execute(
        select(canaries.c.experiment, canaries.c.state)
        .where(canaries.c.revision.in_(ids))
        .order_by(canaries.c.ended_at)
    )
    for row in tried:
        words = f"The canary {row.experiment} is {row.state.replace('_', ' ')}."
        found["infrastructure-6"] = Evidence(points=AUTOMATED, words=words)
    return found


async def _served(connection: AsyncConnection, name: str) -> dict[str, Evidence]:
    found: dict[str, Evidence] = {}
    group = (
        await connection.execute(
            select(drift_groups.c.since, drift_groups.c.alarms).where(
                drift_groups.c.model == name, drift_groups.c.arm == ""
            )
        )
    ).one_or_none()
    if group is not None:
        words = f"Inputs are watched against a reference of their own; {len(group.alarms)} alarms."
        found["monitoring-2"] = Evidence(points=AUTOMATED, words=words)
    served = select(func.coalesce(func.sum(usage_minute.c.requests), 0)).where(usage_minute.c.version == name)
    count = (await connection.execute(served)).scalar_one()
    if count:
        words = f"Latency and errors of {count} requests are counted by the minute; alerts look at them."
        found["monitoring-6"] = Evidence(points=AUTOMATED, words=words)
    rows = await connection.execute(
        select(exchanges.c.record)
        .where(exchanges.c.version == name)
        .order_by(exchanges.c.sequence.desc())
        .limit(_LOOKED_AT)
    )
    seen = [msgspec.msgpack.decode(record, type=Exchange).quality for record in rows.scalars()]
    looked = [one for one in seen if one is not None and one.perplexity is not None]
    if looked:
        words = f"The engine tells log-probabilities and repetition of a share of the answers ({len(looked)} of the newest {len(seen)})."
        found["monitoring-5"] = Evidence(points=AUTOMATED, words=words)
    said = (
        select(func.count())
        .select_from(observations.join(exchanges, observations.c.request == exchanges.c.id))
        .where(exchanges.c.version == name, observations.c.state == "attributed")
    )
    told = (await connection.execute(said)).scalar_one()
    if told:
        words = f"Feedback is attributed to it ({told} so far), and watched for drift."
        found["monitoring-7"] = Evidence(points=AUTOMATED, words=words)
    return found
