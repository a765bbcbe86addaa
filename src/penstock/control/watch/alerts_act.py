"""Acts on alerts: reads which fire and what is deployed, decides (pure), and carries it out with the row that says why. Once for each alert.

Alerts come through `Control.alerted`; what was told to a process that died is found in the table by the next one.
"""

import asyncio
import logging
from typing import Any

import msgspec
from sqlalchemy import Row, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import SYSTEM, Change, Control
from penstock.control.deploy.blocks import block_version
from penstock.control.deploy.record import roll_back
from penstock.control.deploy.state import revision_of
from penstock.control.specs.resources import EnvironmentSpec, RouteSpec
from penstock.control.watch.alerts import Alert, read_alerts
from penstock.control.watch.drift_store import load_groups
from penstock.core.errors import Conflict, NotFound, PenstockError
from penstock.delivery.automatic import AlertPolicy, Decision, FiredAlert, Standing, decide
from penstock.experiments.drift_signals import SIGNALS
from penstock.experiments.drift_watch import standing
from penstock.store.schema import deployments, resources, revisions
from penstock.store.schema_alerts import alerts
from penstock.store.schema_drift import alert_actions
from penstock.store.schema_experiments import experiments

_LOG = logging.getLogger("penstock.control")
_ALMOST = 0.6  # of the way to an alarm, in logarithms: evidence that chance gives once in tens of thousands of requests
WAIT = "wait"  # in place of an action: nothing is decided yet
_LOOK_S = 30.0  # at the latest: another control may have taken the notice


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What an alert is about: a model, and a version of it if it names one."""

    model: str
    label: str = ""


class AlertActor:
    """Does what environments' policies say about alerts. Several controls may run one each: each alert is settled by one of them."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._told = asyncio.Event()
        self._waits: dict[tuple[int, str, str], str] = {}  # by alert, environment and model: why, as it was logged
        control.alerted.append(self._tell)

    def _tell(self, _alert: Alert) -> None:
        self._told.set()

    async def run(self) -> None:
        """Look at what fires now, and whenever something is told, until cancelled."""
        while True:
            self._told.clear()
            try:
                await self.round()
            except PenstockError as error:
                _LOG.warning("Alerts could not be acted on: %s", error.message)
            try:
                await asyncio.wait_for(self._told.wait(), _LOOK_S)
            except TimeoutError:
                continue

    async def round(self) -> int:
        """Settle every alert that fires and that a policy names, and that nothing keeps waiting; how many were.

        Raises:
            Unavailable: if the database cannot be read or written.
        """
        control, settled = self._control, 0
        firing = await read_alerts(control, state="firing", tenant=None, limit=1000)
        known = {alert.sequence for alert in firing}
        self._waits = {which: reason for which, reason in self._waits.items() if which[0] in known}
        for alert in reversed(firing):
            async with control.database.read() as connection:
                concerned = await _concerned(connection, alert, control.settings.control.environment)
            for environment, policy, about in concerned:
                settled += await self._settle(alert, environment, policy, about)
        return settled

    async def _settle(self, alert: Alert, environment: str, policy: AlertPolicy, about: About) -> bool:
        control = self._control
        async with control.database.read() as connection:
            if await _is_settled(connection, alert, environment, about.model):
                return False
            found = await _standing(connection, environment, about.model, control.clock())
        if found is None:
            return False
        live, stands = found
        decision = decide(policy, _fired(alert, about), stands, control.clock())
        if decision.passing:
            await self._wait(alert, live, decision.reason)
            return False
        if decision.action == "none":
            async with control.database.write() as connection:
                return await _write(connection, alert, live, decision, None, control.clock())
        async with control.change(SYSTEM) as change:
            done = await self._act(change, alert, policy, about, environment)
            if not done:
                change.abandon()
        return done

    async def _wait(self, alert: Alert, live: Row[Any], reason: str) -> None:
        """Leave the alert for the next round, and say why: once, not each time."""
        which = (alert.sequence, live.environment, live.model)
        if self._waits.get(which) == reason:
            return
        _LOG.warning("%s (alert %d) waits in %s: %s", alert.name, alert.sequence, live.environment, reason)
        async with self._control.database.write() as connection:
            await _write(
                connection, alert, live, Decision(action="none", reason=reason), None, self._control.clock(), waits=True
            )
        self._waits[which] = reason

    async def _act(self, change: Change, alert: Alert, policy: AlertPolicy, about: About, environment: str) -> bool:
        """Decide once more, on what holds within the change, and do it."""
        connection = change.connection
        if await _is_settled(connection, alert, environment, about.model):
            return False
        found = await _standing(connection, environment, about.model, change.now)
        if found is None:
            return False
        live, stands = found
        decision = decide(policy, _fired(alert, about), stands, change.now)
        if decision.passing:
            return False
        revision = None
        if decision.action != "none":
            await block_version(
                change,
                environment=environment,
                model=live.model,
                label=live.label,
                digest=live.digest,
                reason=decision.reason,
            )
        if decision.action == "rollback":
            try:
                made = await roll_back(
                    change,
                    live.model,
                    environment,
                    own_environment=self._control.settings.control.environment,
                    reason=decision.reason,
                    leaves_live=True,
                )
            except (NotFound, Conflict) as error:  # all that is earlier is blocked, or gone
                decision = Decision(action="hold", reason=f"{decision.reason} {error.message}")
            else:
                revision = made.id
        if not await _write(connection, alert, live, decision, revision, change.now):
            return False
        if decision.action != "none":
            await change.audit(
                f"alert.{decision.action}",
                f"{environment}/{live.model}",
                alert=alert.name,
                sequence=alert.sequence,
                labels=alert.labels,
                since=alert.starts_at,
                from_=f"{live.model}:{live.label}",
                revision=revision,
                reason=decision.reason,
            )
            _LOG.warning("%s of %s in %s: %s", decision.action, live.model, environment, decision.reason)
        return True


def _fired(alert: Alert, about: About) -> FiredAlert:
    return FiredAlert(
        sequence=alert.sequence,
        name=alert.name,
        summary=alert.summary,
        starts_at=alert.starts_at,
        label=about.label,
        signal=alert.labels.get("signal", ""),
    )


async def _is_settled(connection: AsyncConnection, alert: Alert, environment: str, model: str) -> bool:
    statement = select(alert_actions.c.sequence).where(
        alert_actions.c.sequence == alert.sequence,
        alert_actions.c.environment == environment,
        alert_actions.c.model == model,
        alert_actions.c.action != WAIT,
    )
    return (await connection.execute(statement)).first() is not None


async def _write(
    connection: AsyncConnection,
    alert: Alert,
    live: Row[Any],
    decision: Decision,
    revision: str | None,
    now: float,
    *,
    waits: bool = False,
) -> bool:
    """Say what was done, or what is waited for; False if another control has settled the alert meanwhile."""
    insertion = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    told = {
        "at": now,
        "label": live.label,
        "action": WAIT if waits else decision.action,
        "reason": decision.reason,
        "revision": revision,
    }
    which = {"sequence": alert.sequence, "environment": live.environment, "model": live.model}
    written = await connection.execute(
        insertion(alert_actions)
        .values(alert=alert.name, **which, **told)
        .on_conflict_do_update(index_elements=list(which), set_=told, where=alert_actions.c.action == WAIT)
    )
    return written.rowcount == 1


async def _concerned(connection: AsyncConnection, alert: Alert, own: str) -> list[tuple[str, AlertPolicy, About]]:
    """The environments whose policies name the alert, each with what it is about there."""
    rows = (
        await connection.execute(
            select(resources.c.kind, resources.c.name, resources.c.spec).where(
                resources.c.kind.in_(("Environment", "Route"))
            )
        )
    ).all()
    routes = {row.name: RouteSpec.model_validate(row.spec) for row in rows if row.kind == "Route"}
    found: list[tuple[str, AlertPolicy, About]] = []
    for row in rows:
        spec = EnvironmentSpec.model_validate(row.spec).auto_rollback if row.kind == "Environment" else None
        if spec is None or alert.name not in spec.alerts:
            continue
        policy = AlertPolicy(**spec.model_dump() | {"alerts": tuple(spec.alerts), "models": None})
        abouts = await _abouts(connection, alert.labels, row.name, own, routes)
        found += [(row.name, policy, about) for about in abouts if spec.models is None or about.model in spec.models]
    return found


async def _abouts(
    connection: AsyncConnection, labels: dict[str, str], environment: str, own: str, routes: dict[str, RouteSpec]
) -> list[About]:
    """What of an environment's models an alert's labels tell of: by version, by pool, or by route. A route that leads to several tells of none."""
    live = (
        await connection.execute(
            select(revisions)
            .join(deployments, deployments.c.live == revisions.c.id)
            .where(deployments.c.environment == environment)
        )
    ).all()
    told = labels.get("model", "")
    if labels.get("arm"):  # what is wrong with an experiment's arm is the experiment's to decide
        return []
    name, _, label = told.partition(":")
    if label:
        return [About(model=row.model, label=label) for row in live if row.model == name]
    pool = labels.get("pool") or labels.get("model_name", "")
    if pool:
        return [About(model=row.model) for row in live if revision_of(row).build.pool == pool]
    route, _, where = (labels.get("route") or told).partition("@")
    if (where or own) != environment:
        return []
    spec = routes.get(route)
    models = {route} if spec is None else {to.model for to in spec.to if to.model and (to.env or own) == environment}
    found = [About(model=row.model) for row in live if row.model in models]
    return found if len(found) == 1 else []


async def _standing(
    connection: AsyncConnection, environment: str, model: str, now: float
) -> tuple[Row[Any], Standing] | None:
    """The live revision and what bears on it; None: nothing of the model serves there."""
    pointer = (
        await connection.execute(
            select(deployments).where(deployments.c.environment == environment, deployments.c.model == model)
        )
    ).one_or_none()
    if pointer is None or pointer.live is None:
        return None
    live = (await connection.execute(select(revisions).where(revisions.c.id == pointer.live))).one()
    earlier = select(func.count()).where(
        revisions.c.environment == environment,
        revisions.c.model == model,
        revisions.c.number < live.number,
        revisions.c.state == "superseded",
        revisions.c.digest != live.digest,
    )
    acted = select(func.max(alert_actions.c.at)).where(
        alert_actions.c.environment == environment,
        alert_actions.c.model == model,
        alert_actions.c.action.not_in(("none", WAIT)),
    )
    return live, Standing(
        environment=environment,
        model=model,
        label=live.label,
        number=live.number,
        action=live.action,
        live_at=live.live_at if live.live_at is not None else now,
        settled=pointer.wanted == pointer.live,
        experiments=await _deciding(connection, model),
        acted_at=(await connection.execute(acted)).scalar_one_or_none(),
        earlier=bool((await connection.execute(earlier)).scalar_one()),
        asked_otherwise=await _asked_otherwise(connection, f"{model}:{live.label}"),
    )


async def _asked_otherwise(connection: AsyncConnection, version: str) -> bool:
    """Whether what a version is asked has changed, or all but certainly: answers change with it, perhaps before it is found."""
    groups = await load_groups(connection, [(version, "")], lock=False)
    return any(
        standing(watch) >= _ALMOST
        for group in groups.values()
        for watch in group.watches
        if SIGNALS[watch.signal].of == "input"
    )


async def _deciding(connection: AsyncConnection, model: str) -> tuple[str, ...]:
    """The running experiments that have an arm with a version of the model, or split the route of its name."""
    rows = await connection.execute(
        select(experiments.c.name, experiments.c.route, experiments.c.resolved)
        .where(experiments.c.state == "running")
        .order_by(experiments.c.name)
    )
    return tuple(
        row.name
        for row in rows
        if row.route == model or any((arm.get("build") or {}).get("model") == model for arm in row.resolved.values())
    )


async def read_actions(
    control: Control, *, environment: str | None, model: str | None, limit: int
) -> list[dict[str, Any]]:
    """What alerts made control do, why it did nothing, and what it waits for, newest first.

    Raises:
        Unavailable: if the database cannot be read.
    """
    statement = select(alert_actions, alerts.c.summary).outerjoin(alerts, alerts.c.sequence == alert_actions.c.sequence)
    for column, value in ((alert_actions.c.environment, environment), (alert_actions.c.model, model)):
        if value is not None:
            statement = statement.where(column == value)
    statement = statement.order_by(alert_actions.c.at.desc(), alert_actions.c.sequence.desc()).limit(limit)
    async with control.database.read() as connection:
        return [dict(row) for row in (await connection.execute(statement)).mappings()]
