"""How long exchanges are kept: what policies say, and the loop that lets control's index follow it.

What is counted of an exchange (usage, experiments) stays; observations stay, since their ids are callers' idempotency ids.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Control
from penstock.control.deploy.snapshot import DEFAULT_POLICY
from penstock.control.ingest.engagement import forget_visits
from penstock.control.specs.policy import PolicySpec
from penstock.control.specs.resources import TenantSpec
from penstock.control.watch.drift_store import forget_drift
from penstock.core.errors import PenstockError
from penstock.journal.analytics.upkeep import Retention
from penstock.store.schema import resources
from penstock.store.schema_experiments import exchanges

_LOG = logging.getLogger("penstock.control")
EVERY_S = 600.0
PIECE = 2_000  # rows of one transaction: ingest waits no longer for it than for a batch
_PAUSE_S = 0.05
_DAY_S = 86400.0


def retention_by_policy(policies: Mapping[str, PolicySpec], tenants: Mapping[str, TenantSpec]) -> Retention:
    """For how long each tenant's exchanges are kept: as its policy says, or else the policy `default`."""
    default = policies[DEFAULT_POLICY].retention_days if DEFAULT_POLICY in policies else None
    own: dict[str, int] = {}
    for name, tenant in tenants.items():
        policy = policies.get(tenant.policy or "")
        if policy is not None and policy.retention_days is not None:
            own[name] = policy.retention_days
    return Retention(default=default, tenants=own)


async def read_retention(connection: AsyncConnection) -> Retention:
    """What holds now."""
    wanted = select(resources.c.kind, resources.c.name, resources.c.spec)
    rows = (await connection.execute(wanted.where(resources.c.kind.in_(("Policy", "Tenant"))))).all()
    return retention_by_policy(
        {row.name: PolicySpec.model_validate(row.spec) for row in rows if row.kind == "Policy"},
        {row.name: TenantSpec.model_validate(row.spec) for row in rows if row.kind == "Tenant"},
    )


class Forgetter:
    """Removes exchanges that are too old from the index. Several controls may do so at once."""

    def __init__(self, control: Control, strays: Callable[[], Awaitable[int]] | None = None) -> None:
        """`strays` destroys, in each round, texts that wait for requests that do not come."""
        self._control = control
        self._strays = strays

    async def run(self) -> None:
        """Look every now and then, until cancelled; a round that fails is told and tried again."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                removed = await self.round()
                while self._strays is not None and (gone := await self._strays()):
                    _LOG.info("%d keys of texts whose requests never came were destroyed", gone)
            except PenstockError as error:
                _LOG.warning("Old exchanges could not be removed: %s", error.message)
                continue
            if removed:
                _LOG.info("%d exchanges that were older than their policies keep were removed", removed)

    async def round(self) -> int:
        """Remove all that is too old now; how many there were.

        Raises:
            Unavailable: if the database cannot be read or written.
        """
        async with self._control.database.read() as connection:
            retention = await read_retention(connection)
        now = self._control.clock()
        async with self._control.database.write() as connection:
            await forget_visits(connection, now)
        async with self._control.database.write() as connection:
            await forget_drift(connection, now)
        removed = 0
        for tenant, days in retention.tenants.items():
            removed += await self._remove(exchanges.c.tenant == tenant, now - days * _DAY_S)
        if retention.default is not None:
            rest = exchanges.c.tenant.not_in(retention.tenants)
            removed += await self._remove(rest, now - retention.default * _DAY_S)
        return removed

    async def _remove(self, whose: ColumnElement[bool], before: float) -> int:
        removed = 0
        while True:
            oldest = select(exchanges.c.sequence).where(whose, exchanges.c.at < before).limit(PIECE)
            async with self._control.database.write() as connection:
                gone = (await connection.execute(delete(exchanges).where(exchanges.c.sequence.in_(oldest)))).rowcount
            removed += gone
            if gone < PIECE:
                return removed
            await asyncio.sleep(_PAUSE_S)
