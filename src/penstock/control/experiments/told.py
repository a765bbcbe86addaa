"""An experiment as the API tells it: what was registered, where it stands, the verdict."""

from typing import Any

import msgspec
from sqlalchemy import Row, select

from penstock.control.context import Control
from penstock.control.deploy.canary_rows import canary_of
from penstock.control.experiments.life import experiment_row
from penstock.experiments.design import TRANSITIONS, Design, parse_design
from penstock.experiments.pair_verdict import spec_of
from penstock.store.schema_experiments import experiment_epochs


def summary(row: Row[Any], shares: dict[str, float]) -> dict[str, Any]:
    """What a list tells of an experiment."""
    design = parse_design(row.spec)
    verdict = row.verdict or {"state": "running", "reasons": []}
    decision = row.decision
    return {
        "name": row.name,
        "strategy": design.strategy,
        "route": design.route,
        "unit": design.unit,
        "hypothesis": design.hypothesis,
        "state": row.state,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "started_at": row.started_at,
        "decided_at": row.decided_at,
        "epoch": row.epoch,
        "step": row.step,
        "steps": list(design.plan.steps),
        "shares": _told_shares(design, row, shares)
        if row.state == "running"
        else ({row.serving: 1.0} if row.serving else {}),
        "control": design.incumbent,
        "arms": [arm.name for arm in design.arms],
        "serving": row.serving or None,
        "primary": msgspec.to_builtins(design.primary),
        "verdict": {
            "state": verdict["state"],
            "reasons": decision["reasons"] if decision is not None else verdict["reasons"],
        },
        "decision": decision,
    }


def _told_shares(design: Design, row: Row[Any], shares: dict[str, float]) -> dict[str, float]:
    """The arms' shares of the traffic; where a second arm answers too, the control has all, and the others the dose."""
    if not design.paired:
        return shares
    dose = spec_of(design).share if row.dose is None else row.dose
    return {design.incumbent: 1.0} | {arm: dose * share for arm, share in shares.items()}


async def newest_shares(control: Control, rows: list[Row[Any]]) -> dict[str, dict[str, float]]:
    """By experiment: the shares of its newest epoch."""
    if not rows:
        return {}
    async with control.database.read() as connection:
        epochs = await connection.execute(
            select(experiment_epochs)
            .where(experiment_epochs.c.experiment.in_([row.name for row in rows]))
            .order_by(experiment_epochs.c.epoch)
        )
        return {epoch.experiment: dict(epoch.shares) for epoch in epochs}


async def read_experiment(control: Control, name: str) -> dict[str, Any]:
    """All about one experiment.

    Raises:
        NotFound: if there is none.
    """
    async with control.database.read() as connection:
        row = await experiment_row(connection, name)
        epochs = (
            await connection.execute(
                select(experiment_epochs)
                .where(experiment_epochs.c.experiment == name)
                .order_by(experiment_epochs.c.epoch)
            )
        ).all()
        canary = await canary_of(connection, name)
    shares = dict(epochs[-1].shares) if epochs else {}
    design = parse_design(row.spec)
    told = summary(row, shares) | {
        "spec": row.spec,
        "resolved": row.resolved,
        "planned": design.planned()._asdict()
        | {"inference": design.plan.inference, "units": row.planned or design.planned_units()},
        "actions": sorted(TRANSITIONS[row.state]) if canary is None else _of_canary(row.state),
        "deployment": None if canary is None else canary.model,
        "expires_at": row.expires_at,
        "epochs": [{"epoch": one.epoch, "shares": dict(one.shares), "started_at": one.started_at} for one in epochs],
    }
    if row.verdict is not None:
        told["verdict"] = row.verdict | {"reasons": told["verdict"]["reasons"]}
    return told


def _of_canary(state: str) -> list[str]:
    """What may be done with the canary of a deployment as an experiment: it ends as a canary."""
    return sorted(set(TRANSITIONS[state]) & {"start", "pause"})
