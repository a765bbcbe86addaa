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
    prefix_cache: bool | None = (
        None  # its engines may remember prompts for all tenants; None: as others who want it say
    )
    by: str = ""  # for people: deployment:production/support-bot, experiment:bot-1-1, pool:bot


class WantedPool(msgspec.Struct, frozen=True, kw_only=True):
    """One pool that must be there."""

    name: str
    build: BuildKey
    replicas: int
    urgent: bool = True
    prefix_cache: bool = False
    by: tuple[str, ...] = ()

    def replica(self, number: int) -> str:
        """The id of one of its replicas; engines that are started otherwise are other replicas."""
        return f"{self.name}-{'shared' if self.prefix_cache else ''}{number}"


def wanted_pools(wants: Iterable[Want]) -> tuple[WantedPool, ...]:
    """One pool for each build, with the largest number of replicas asked for, ordered by name.

    Its engines remember prompts for all tenants alike only if somebody says that they may, and nobody that they may not.
    """
    pools: dict[str, WantedPool] = {}
    says: dict[str, list[bool]] = {}
    for want in wants:
        name = want.build.pool
        known = pools.get(name)
        said = says.setdefault(name, [])
        if want.prefix_cache is not None:
            said.append(want.prefix_cache)
        pools[name] = WantedPool(
            name=name,
            build=want.build,
            replicas=max(want.replicas, known.replicas if known else 0),
            urgent=want.urgent or (known is not None and known.urgent),
            prefix_cache=bool(said) and all(said),
            by=(*(known.by if known else ()), want.by),
        )
    return tuple(pools[name] for name in sorted(pools))
