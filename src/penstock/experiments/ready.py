"""What a registration must say so that what it finds can be believed."""

from penstock.core.errors import BadRequest, Conflict
from penstock.experiments.design import Design


def check_decisive(design: Design) -> None:
    """That the primary metric can decide on its own, or has the share of finished answers beside it.

    What only finished answers have (`Metric.finished`), or a failed one has at least, makes an arm look better that fails on the hard ones.
    Where two arms answer the same request the verdict itself looks at both (`pair_verdict`).

    Raises:
        BadRequest: if it has not.
    """
    if not design.primary_metric.finished or design.paired:
        return
    if "completion" not in {one.metric for one in design.guardrails}:
        raise BadRequest(
            f"{design.primary.metric!r} cannot decide alone: it tells of finished answers, so an arm that fails or loses its users on the slow "
            "ones would look better.",
            param="guardrails",
            hint="Add {metric: completion} to the guardrails.",
        )


def check_hypothesis(design: Design, name: str) -> None:
    """That what is to be found out was written down before it is looked for.

    Raises:
        Conflict: if it was not.
    """
    if not design.hypothesis.strip():
        raise Conflict(
            f"The experiment {name!r} has no hypothesis: say what is expected before it starts.",
            code="no_hypothesis",
            param="spec.hypothesis",
            hint="Write it into the draft's spec (hypothesis: ...) and apply it again; a draft may be edited.",
        )
