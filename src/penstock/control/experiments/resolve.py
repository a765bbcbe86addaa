"""What an experiment's arms lead to at its start: aliases that move later do not move an arm."""

from penstock.control.deploy.snapshot import build_of_pool
from penstock.control.deploy.state import State
from penstock.control.experiments.entry import JUDGE, ResolvedArm, first_of
from penstock.control.specs.resources import PoolSpec
from penstock.core.errors import BadRequest
from penstock.experiments.arms import ArmSpec
from penstock.experiments.design import Design
from penstock.routing.patterns import Patterns


def resolve(design: Design, state: State) -> dict[str, ResolvedArm]:
    """Each arm's pool, those that cascades ask first, and the judge's.

    Raises:
        BadRequest: what is not there; `param` is its path.
    """
    models = {deployment.model for deployment in state.deployments if deployment.live is not None}
    if design.route not in state.routes and design.route not in models:
        raise BadRequest(f"There is no route {design.route!r}.", param="route")
    found = {arm.name: _resolve_arm(index, arm, state) for index, arm in enumerate(design.arms)}
    for index, arm in enumerate(design.arms):
        if arm.cascade is not None:
            path = f"arms[{index}].routing.cascade"
            _check_patterns(arm.cascade.patterns, path)
            who = f"the cascade of the arm {arm.name!r}"
            found[first_of(arm.name)] = _resolve_pool(arm.cascade.first, state, who, f"{path}.first")
    for evaluator in design.evaluators:
        if evaluator not in state.evaluators:
            raise BadRequest(f"There is no evaluator {evaluator!r}.", param="metrics")
    if design.shadow is not None and design.shadow.judge is not None:
        found[JUDGE] = _resolve_pool(design.shadow.judge, state, "the judge", "shadow.judge")
    return found


def _check_patterns(patterns: tuple[str, ...], path: str) -> None:
    try:
        Patterns(patterns)
    except BadRequest as error:
        raise BadRequest(error.message, code=error.code, param=f"{path}.patterns") from None


def _resolve_arm(index: int, arm: ArmSpec, state: State) -> ResolvedArm:
    if arm.policy is not None and arm.policy not in state.policies:
        raise BadRequest(f"There is no policy {arm.policy!r}.", param=f"arms[{index}].policy")
    who = f"the arm {arm.name!r}"
    if arm.pool is not None:
        return _resolve_pool(arm.pool, state, who, f"arms[{index}].pool")
    return _resolve_build(PoolSpec(build=arm.build), state, who, f"arms[{index}].build")


def _resolve_pool(pool: str, state: State, who: str, param: str) -> ResolvedArm:
    spec = state.pools.get(pool)
    if spec is None:
        raise BadRequest(f"There is no pool {pool!r}.", param=param)
    return ResolvedArm(pool=pool) if spec.build is None else _resolve_build(spec, state, who, param)


def _resolve_build(spec: PoolSpec, state: State, who: str, param: str) -> ResolvedArm:
    build = build_of_pool(spec, state)
    if build is None or build not in state.builds:
        raise BadRequest(
            f"There is no build {spec.build!r} in {spec.precision} to serve {who} from.",
            param=param,
            hint="Push the version first; `penstock models show` lists its builds.",
        )
    return ResolvedArm(pool=build.pool, build=build)
