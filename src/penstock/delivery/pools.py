"""Which pools there must be: one for each build that something wants, with as many replicas as the most demanding wants."""

from collections.abc import Iterable

import msgspec


class BuildKey(msgspec.Struct, frozen=True, kw_only=True):
    """A version in one precision: what a pool runs."""

    model: str
    label: str
    precision: str

    @property
    def pool(self) -> str:
        """The name of its pool: `support-bot-v1.1.0-int8`."""
        return f"{self.model}-{self.label}-{self.precision}"


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody wants `replicas` of a build: a deployment, an experiment's arm, a declared pool."""

    build: BuildKey
    replicas: int = 1
    urgent: bool = True  # its replicas are started before those that are only kept warm
    by: str = ""  # for people: deployment:production/support-bot, experiment:bot-1-1, pool:bot


class WantedPool(msgspec.Struct, frozen=True, kw_only=True):
    """One pool that must be there."""

    name: str
    build: BuildKey
    replicas: int
    urgent: bool = True
    by: tuple[str, ...] = ()


def wanted_pools(wants: Iterable[Want]) -> tuple[WantedPool, ...]:
    """One pool for each build, with the largest number of replicas asked for, ordered by name."""
    pools: dict[str, WantedPool] = {}
    for want in wants:
        name = want.build.pool
        known = pools.get(name)
        pools[name] = WantedPool(
            name=name,
            build=want.build,
            replicas=max(want.replicas, known.replicas if known else 0),
            urgent=want.urgent or (known is not None and known.urgent),
            by=(*(known.by if known else ()), want.by),
        )
    return tuple(pools[name] for name in sorted(pools))
