"""What an experiment's arms lead to is looked at as a promotion is: an experiment's start needs less than one, and its arms get users' traffic, too."""

from collections.abc import Mapping

from penstock.control.context import Change
from penstock.control.deploy.blocks import standing_blocks
from penstock.control.deploy.rows import live_revision
from penstock.control.deploy.state import revision_of
from penstock.control.experiments.entry import ResolvedArm, first_of
from penstock.control.gates.passing import pass_gates
from penstock.control.versions.find import find_version
from penstock.core.references import Reference
from penstock.delivery.blocks import check_unblocked
from penstock.experiments.design import Design
from penstock.registry.states import check_deployable


async def check_arms(change: Change, design: Design, resolved: Mapping[str, ResolvedArm], environment: str) -> None:
    """See that every version that users of the experiment may get an answer from may serve in `environment`.

    What is live there may. Another one must be deployable and not blocked, and pass the gates if the arm names it itself; those behind
    a declared pool passed them when it was declared. Shadows answer nobody.

    Raises:
        Conflict: naming the version, and each gate that is not passed.
    """
    for arm in design.arms:
        if design.strategy == "shadow" and arm.name != design.incumbent:
            continue
        for name in (arm.name, first_of(arm.name)):
            found = resolved.get(name)
            if found is None or found.build is None:
                continue
            build = found.build
            version = await find_version(change.connection, Reference(name=build.model, label=build.label))
            live = await live_revision(change.connection, environment, build.model)
            if live is not None and revision_of(live).build == build:
                continue
            check_deployable(f"{build.model}:{build.label}", version.state)
            check_unblocked(
                await standing_blocks(change.connection, environment, build.model),
                model=build.model,
                label=build.label,
                digest=version.digest,
                environment=environment,
            )
            if arm.pool is None and name == arm.name:
                await pass_gates(change, version, environment, build.precision, "")
