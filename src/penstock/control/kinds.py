"""Kinds of resources: how each is listed, written and deleted. The API's endpoints and `penstock apply` both work through them."""

from typing import Any, Literal, Protocol, TypeVar

import msgspec
from pydantic import ValidationError
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from penstock.control.context import Change
from penstock.control.deploy.pool_gates import check_pool
from penstock.control.deploy.state import SPECS
from penstock.control.errors import validation_error
from penstock.control.figures.refusals import check_refusals
from penstock.control.specs.evaluator import EvaluatorSpec
from penstock.control.specs.policy import PolicySpec
from penstock.control.specs.resources import ENVIRONMENTS, PlaceSpec, PoolSpec, RouteSpec, Spec, TenantSpec
from penstock.control.versions.aliases import check_no_alias
from penstock.core.errors import BadRequest, Conflict, NotFound
from penstock.core.snapshot import Policy
from penstock.guard.policies import compile_policy
from penstock.routing.patterns import Patterns
from penstock.store.schema import deployments, keys, resources
from penstock.store.schema_experiments import experiments

Origin = Literal["api", "apply", "system"]
S = TypeVar("S", bound=Spec)


class Kind(Protocol):
    """One kind of resource. Its methods run inside a `Change`, or a read, and raise core errors."""

    @property
    def name(self) -> str:
        """As documents say it: `Pool`."""
        ...

    @property
    def plural(self) -> str:
        """As the API's path says it: `pools`."""
        ...

    def parse(self, spec: object) -> Any:
        """The checked spec.

        Raises:
            BadRequest: its `param` is the path of what is wrong, from `spec` on.
        """
        ...

    def dump(self, spec: Any) -> dict[str, Any]:
        """The whole spec as JSON, defaults included: two specs that mean the same are dumped the same."""
        ...

    async def current(self, connection: AsyncConnection, origin: Origin | None = None) -> dict[str, dict[str, Any]]:
        """All that are there, by name, as `dump` gives them; with `origin` those alone that came that way."""
        ...

    async def put(self, change: Change, name: str, spec: Any, origin: Origin) -> dict[str, Any]:
        """Create or replace one; what it gives is told to the caller once (a new key's text)."""
        ...

    async def delete(self, change: Change, name: str) -> None:
        """Remove one.

        Raises:
            NotFound: if there is none.
            Conflict: if something still needs it.
        """
        ...


def parse_spec(model: type[S], spec: object) -> S:
    """`spec` as a `model`.

    Raises:
        BadRequest: its `param` is the path of the first thing that is wrong, from `spec` on.
    """
    try:
        return model.model_validate(spec)
    except ValidationError as error:
        raise validation_error(error, "spec") from None


def _check_rules(spec: PolicySpec) -> None:
    """Raises `BadRequest` for rules that gateways could not compile: they would refuse all that the policy is for."""
    try:
        compile_policy(msgspec.convert({"name": "policy", **spec.model_dump()}, Policy))
    except BadRequest as error:
        raise BadRequest(error.message, param=f"spec.{error.param}" if error.param else "spec.rules") from None


def _check_patterns(spec: RouteSpec) -> None:
    """Raises `BadRequest` for patterns that gateways could not compile."""
    found = [(f"spec.choose.{i}.last_user", (rule.last_user,)) for i, rule in enumerate(spec.choose) if rule.last_user]
    if spec.cascade is not None:
        found += [(f"spec.cascade.patterns.{i}", (one,)) for i, one in enumerate(spec.cascade.patterns)]
    for path, patterns in found:
        try:
            Patterns(patterns)
        except BadRequest as error:
            raise BadRequest(f"{path}: {error.message}", param=path, code=error.code) from None


def _check_refusals(spec: PoolSpec) -> None:
    if spec.quality.refusals is not None:
        check_refusals(spec.quality.refusals, "spec.quality.refusals")


class ResourceKind:
    """A kind kept as a row of `resources`: Tenant, Pool, Route, Policy, Environment."""

    def __init__(self, name: str, plural: str, model: type[Spec] | None = None) -> None:
        self.name = name
        self.plural = plural
        self.model = model or SPECS[name]

    def parse(self, spec: object) -> Spec:
        """See `Kind.parse`."""
        parsed = parse_spec(self.model, spec)
        if isinstance(parsed, PolicySpec):
            _check_rules(parsed)
        if isinstance(parsed, RouteSpec):
            _check_patterns(parsed)
        if isinstance(parsed, PoolSpec):
            _check_refusals(parsed)
        return parsed

    def dump(self, spec: Spec) -> dict[str, Any]:
        """See `Kind.dump`."""
        return spec.model_dump(mode="json")

    async def current(self, connection: AsyncConnection, origin: Origin | None = None) -> dict[str, dict[str, Any]]:
        """See `Kind.current`."""
        statement = select(resources).where(resources.c.kind == self.name).order_by(resources.c.name)
        if origin is not None:
            statement = statement.where(resources.c.origin == origin)
        rows = await connection.execute(statement)
        return {row.name: self.dump(self.model.model_validate(row.spec)) for row in rows}

    async def put(self, change: Change, name: str, spec: Spec, origin: Origin) -> dict[str, Any]:
        """See `Kind.put`."""
        await _check_references(change.connection, self.name, spec)
        if self.name == "Environment":
            await check_no_alias(change.connection, name)
        values = {
            "spec": self.dump(spec),
            "generation": change.generation,
            "origin": origin,
            "updated_at": change.now,
        }
        mine = (resources.c.kind == self.name) & (resources.c.name == name)
        changed = await change.connection.execute(update(resources).where(mine).values(**values))
        if changed.rowcount == 0:
            await change.connection.execute(
                insert(resources).values(kind=self.name, name=name, created_at=change.now, **values)
            )
        await change.audit(f"{self.name.lower()}.put", name, of_tenant=self._about(name), spec=values["spec"])
        return {}

    async def delete(self, change: Change, name: str) -> None:
        """See `Kind.delete`."""
        await _check_unused(change.connection, self.name, name)
        removed = await change.connection.execute(
            delete(resources).where(resources.c.kind == self.name, resources.c.name == name)
        )
        if removed.rowcount == 0:
            raise NotFound(f"There is no {self.name.lower()} {name!r}.")
        await change.audit(f"{self.name.lower()}.delete", name, of_tenant=self._about(name))

    def _about(self, name: str) -> str | None:
        """The tenant that a change of `name` is about."""
        return name if self.name == "Tenant" else None


class PoolKind(ResourceKind):
    """Pools: a version that one names passes the gates of the environment that gateways serve."""

    def __init__(self, environment: str) -> None:
        super().__init__("Pool", "pools")
        self._environment = environment

    async def put(self, change: Change, name: str, spec: Spec, origin: Origin) -> dict[str, Any]:
        """See `Kind.put`; raises what `check_pool` does."""
        assert isinstance(spec, PoolSpec)
        await check_pool(change, name, spec, self._environment)
        return await super().put(change, name, spec, origin)


def resource_kinds(environment: str) -> tuple[ResourceKind, ...]:
    """The kinds kept as rows of `resources`, each after those that it refers to; gateways serve `environment`."""
    return (
        ResourceKind("Environment", "environments"),
        ResourceKind("Policy", "policies"),
        ResourceKind("Tenant", "tenants"),
        PoolKind(environment),
        ResourceKind("Route", "routes"),
    )


async def _names(connection: AsyncConnection, kind: str) -> set[str]:
    rows = await connection.execute(select(resources.c.name).where(resources.c.kind == kind))
    return set(rows.scalars())


async def _check_references(connection: AsyncConnection, kind: str, spec: Spec) -> None:
    wanted: list[tuple[str, str, str]] = []  # kind, name, path
    if isinstance(spec, TenantSpec | RouteSpec) and spec.policy is not None:
        wanted.append(("Policy", spec.policy, "spec.policy"))
    if isinstance(spec, RouteSpec):
        for path, place in spec.places():
            wanted += _needed(place, f"spec.{path}")
        for i, other in enumerate(spec.fallback):
            pool, _, environment = other.partition("@")
            wanted.append(
                ("Environment", environment, f"spec.fallback.{i}")
                if environment
                else ("Pool", pool, f"spec.fallback.{i}")
            )
    await _check_wanted(connection, wanted, kind)


def _needed(place: PlaceSpec, path: str) -> list[tuple[str, str, str]]:
    """Kind, name and path of what a place names."""
    named = (("Pool", place.pool, f"{path}.pool"), ("Environment", place.env, f"{path}.env"))
    return [(kind, name, where) for kind, name, where in named if name is not None]


async def check_place(connection: AsyncConnection, place: PlaceSpec, path: str, kind: str) -> None:
    """Raises `BadRequest` if what a place of a `kind` names is not there."""
    await _check_wanted(connection, _needed(place, path), kind)


async def _check_wanted(connection: AsyncConnection, wanted: list[tuple[str, str, str]], kind: str) -> None:
    for needed, name, path in wanted:
        if name not in await _names(connection, needed):
            raise BadRequest(f"{path}: there is no {needed.lower()} {name!r} for this {kind.lower()}.", param=path)


async def _check_unused(connection: AsyncConnection, kind: str, name: str) -> None:
    users: list[str] = []
    if kind == "Environment":
        if name in ENVIRONMENTS:
            raise Conflict(f"The environment {name} belongs to every house and stays.")
        rows = await connection.execute(select(deployments.c.model).where(deployments.c.environment == name))
        users += [f"the deployment of {model}" for model in rows.scalars()]
    if kind == "Tenant":
        rows = await connection.execute(select(keys.c.id).where(keys.c.tenant == name, keys.c.revoked_at.is_(None)))
        users += [f"the key {key}" for key in rows.scalars()]
    if kind in {"Pool", "Policy", "Environment"}:
        rows = await connection.execute(select(resources.c.kind, resources.c.name, resources.c.spec))
        users += [f"the {row.kind.lower()} {row.name}" for row in rows if _uses(row.kind, row.spec, kind, name)]
    users += [f"the experiment {one}" for one in await _experiments_using(connection, kind, name)]
    if users:
        raise Conflict(
            f"The {kind.lower()} {name} is still used by {', '.join(users[:3])}.", hint="Change or remove those first."
        )


async def _experiments_using(connection: AsyncConnection, kind: str, name: str) -> list[str]:
    """The experiments that need `name` for what gateways are told of them."""
    if kind not in {"Route", "Pool", "Policy"}:
        return []
    rows = await connection.execute(
        select(experiments.c.name, experiments.c.route, experiments.c.spec)
        .where(
            experiments.c.state.in_(("running", "paused"))
            | (experiments.c.state == "decided") & (experiments.c.serving != "")
        )
        .order_by(experiments.c.name)
    )
    field = kind.lower()
    return [
        row.name
        for row in rows
        if (row.route == name if kind == "Route" else any(arm.get(field) == name for arm in row.spec["arms"]))
    ]


def _uses(user: str, raw: dict[str, Any], kind: str, name: str) -> bool:
    if user not in {"Route", "Tenant", "Pool", "Evaluator"}:
        return False
    spec = SPECS[user].model_validate(raw)
    if isinstance(spec, EvaluatorSpec):
        place = spec.place
        return place is not None and name == {"Pool": place.pool, "Environment": place.env}.get(kind)
    if kind == "Policy":
        return isinstance(spec, TenantSpec | RouteSpec) and spec.policy == name
    if kind == "Environment":
        if isinstance(spec, PoolSpec):
            return spec.build is not None and spec.build.endswith(f"@{name}")
        return isinstance(spec, RouteSpec) and (
            any(place.env == name for _, place in spec.places())
            or any(one.endswith(f"@{name}") for one in spec.fallback)
        )
    return isinstance(spec, RouteSpec) and (
        any(place.pool == name for _, place in spec.places()) or name in spec.fallback
    )
