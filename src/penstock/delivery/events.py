"""Events: what of the audit trail other systems are told, and whom it concerns. Pure."""

from collections.abc import Iterable

import msgspec

# By action of the audit trail: what it means to whoever is told.
EVENTS: dict[str, str] = {
    "version.commit": "A version was pushed.",
    "version.sign": "A version was signed.",
    "version.approve": "Somebody approved a version for an environment.",
    "version.disapprove": "Somebody took their approval back.",
    "version.archive": "A version was archived.",
    "version.restore": "An archived version was restored.",
    "version.delete": "A version was deleted.",
    "version.block": "A version may not be deployed in an environment any more.",
    "version.unblock": "A block was cleared.",
    "evaluation.finish": "An evaluation of a version has ended.",
    "build.commit": "A version has a build more.",
    "build.fail": "A build could not be made.",
    "gates.override": "An administrator let a version in though gates were not passed.",
    "deployment.promote": "A version is to be live in an environment.",
    "deployment.rollback": "An environment goes back to an earlier state of a model.",
    "deployment.live": "A revision is live.",
    "deployment.fail": "A revision was given up; what was live before stays.",
    "canary.start": "A version is tried out on a share of the traffic.",
    "canary.promote": "A canary has all of the traffic.",
    "canary.rollback": "A canary was undone for what it did.",
    "canary.abort": "A canary was taken back by hand.",
    "alert.rollback": "An alert rolled a version back.",
    "alert.hold": "An alert had a version blocked.",
    "pipeline.start": "A pipeline has begun.",
    "pipeline.step": "A step of a pipeline has ended.",
    "pipeline.done": "A pipeline has reached its last environment.",
    "pipeline.refuse": "A pipeline was refused; the event says by what, with the figures.",
    "pipeline.fail": "A pipeline could not go on.",
    "pipeline.cancel": "Somebody cancelled a pipeline.",
    "webhook.test": "Somebody asked for a test of this webhook; no other one hears of it.",
}
TEST = "webhook.test"


class Concerned(msgspec.Struct, frozen=True, kw_only=True):
    """What an event is about; "" where it is about none."""

    model: str = ""
    label: str = ""
    environment: str = ""


def is_event(action: str) -> bool:
    """Whether others are told of `action`."""
    return action in EVENTS


def concerned(action: str, subject: str) -> Concerned:
    """What the subject of an audit event names: `MODEL:LABEL`, `ENVIRONMENT/MODEL` or `ENVIRONMENT/MODEL:LABEL`."""
    if action == TEST:
        return Concerned()
    environment, slash, rest = subject.rpartition("/")
    model, _, label = rest.partition(":")
    return Concerned(model=model, label=label, environment=environment if slash else "")


def known_pattern(pattern: str) -> bool:
    """Whether `pattern` names events: `*`, `deployment.*` or `deployment.live`."""
    noun, star, rest = pattern.partition("*")
    if star:
        return not rest and (not noun or (noun.endswith(".") and any(one.startswith(noun) for one in EVENTS)))
    return pattern in EVENTS


def wants(
    *, webhook: str, events: Iterable[str], models: Iterable[str] | None, action: str, subject: str, model: str
) -> bool:
    """Whether a webhook is told of an event.

    Args:
        webhook: its name.
        events: patterns; see `known_pattern`.
        models: that it is told of; None: all.
        action: of the event.
        subject: of the event.
        model: that the event is about; "": none.
    """
    if action == TEST:
        return subject == webhook
    if models is not None and model not in models:
        return False
    return any(action == one or (one.endswith("*") and action.startswith(one[:-1])) for one in events)
