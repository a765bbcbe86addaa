"""What the Snapshot holds so that evaluators can ask models at the gateway: for each a route and a key, under a tenant and a policy of their own."""

import base64
import hmac
from collections.abc import Callable

from penstock.control.specs.evaluator import EvaluatorSpec
from penstock.control.specs.resources import PlaceSpec
from penstock.core.snapshot import KeyEntry, Limits, Policy, Route, Target, TenantEntry

EVALUATORS = "(evaluators)"  # the tenant, and its policy: nothing that a person names can be called so
_WEIGHT = 0.1  # beside other tenants of the class `batch`


def route_of(evaluator: str) -> str:
    """The model name under which an evaluator reaches what it asks."""
    return f"{EVALUATORS}/{evaluator}"


def evaluator_of(route: str) -> str:
    """Whose route it is: what `route_of` was told; "" if it is nobody's (a request that was refused before it had one)."""
    return route.removeprefix(f"{EVALUATORS}/") if route.startswith(f"{EVALUATORS}/") else ""


def secret_of(service_token: str, evaluator: str) -> str:
    """The text of an evaluator's key: it is worked out wherever it is needed, and kept nowhere."""
    digest = hmac.digest(service_token.encode(), f"penstock evaluator {evaluator}".encode(), "sha256")
    return "pk-" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def tenant_entries(asking: bool) -> tuple[tuple[TenantEntry, ...], tuple[Policy, ...]]:
    """The tenant and the policy, if some evaluator is `asking`: of what judges are shown nothing is kept, and no rule looks at it."""
    if not asking:
        return (), ()
    tenant = TenantEntry(name=EVALUATORS, priority="batch", weight=_WEIGHT, policy=EVALUATORS)
    return (tenant,), (Policy(name=EVALUATORS),)


def key_entry(name: str, spec: EvaluatorSpec, hashed: str) -> KeyEntry:
    """The key, whose limits are the evaluator's budget."""
    return KeyEntry(
        id=f"evaluator_{name}",
        hash=hashed,
        tenant=EVALUATORS,
        name=name,
        models=(route_of(name),),
        limits=Limits(requests_per_minute=spec.budget.calls_per_minute, usd_per_day=spec.budget.usd_per_day),
    )


def route_entry(name: str, place: PlaceSpec, pool_of: Callable[[PlaceSpec], str]) -> Route:
    """The route to what the evaluator asks."""
    return Route(name=route_of(name), to=(Target(pool=pool_of(place)),), policy=EVALUATORS, tenant=EVALUATORS)
