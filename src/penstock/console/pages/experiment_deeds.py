"""What a verdict asks of the deployment: a winner is promoted, a loser that is live is rolled back, by forms that are filled in already."""

from collections.abc import Iterable
from urllib.parse import urlencode

import msgspec

from penstock.console.client import at
from penstock.console.shapes import Deployment
from penstock.console.shapes_experiments import WholeExperiment
from penstock.console.visit import Visit

_LONGEST = 500  # characters of a reason, as in the forms


class DeedLink(msgspec.Struct, frozen=True, kw_only=True):
    """A button that leads to a form."""

    words: str
    url: str


async def deeds(visit: Visit, experiment: WholeExperiment) -> tuple[DeedLink, ...]:
    """The buttons of an experiment that has ended, for who may deploy."""
    if not _has_ended(experiment) or not visit.may("deployments:write"):
        return ()
    return tuple(deed_links(experiment, await visit.api.get("/deployments", tuple[Deployment, ...])))


def _has_ended(experiment: WholeExperiment) -> bool:
    """By a verdict, and not as the canary of a deployment, which has become the deployment or not already."""
    ended = experiment.state in {"decided", "archived"} and experiment.deployment is None
    return ended and experiment.verdict.state in {"better", "worse"}


def deed_links(experiment: WholeExperiment, deployments: Iterable[Deployment]) -> list[DeedLink]:
    """A promotion of the better arm's version, or a roll-back of the worse one's wherever it is live.

    An arm that varies more than its version is not promoted from here: a promotion would leave the rest behind.
    """
    verdict = experiment.verdict
    arm = next((one for one in experiment.spec.arms if one.name == verdict.arm), None)
    resolved = experiment.resolved.get(verdict.arm)
    if arm is None or resolved is None or resolved.build is None:
        return []
    build = resolved.build
    reason = " ".join((f"{experiment.name}: {verdict.arm} is {verdict.state}.", *verdict.reasons[:1]))[:_LONGEST]
    mine = [one for one in deployments if one.model == build.model and one.label == build.label]
    if verdict.state == "worse":
        return [
            DeedLink(
                words=f"Roll back {build.label} in {one.environment}…",
                url=f"{at('models', build.model, 'rollback')}?{urlencode({'environment': one.environment, 'reason': reason})}",
            )
            for one in mine
        ]
    if arm.params or arm.system is not None or arm.policy is not None or arm.routing is not None:
        return []
    query = urlencode({"label": build.label, "reason": reason})
    return [DeedLink(words=f"Promote {build.label}…", url=f"{at('models', build.model, 'promote')}?{query}")]
