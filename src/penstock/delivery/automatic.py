"""Whether an alert takes a version out of an environment: by the environment's policy and the deployment record."""

from collections.abc import Iterator
from typing import Literal

import msgspec

ActionName = Literal["rollback", "hold", "none"]


class AlertPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What alerts may do in an environment."""

    alerts: tuple[str, ...]
    action: ActionName = "rollback"
    young_s: float = 86400.0  # a revision that has been live for longer is not to blame
    cool_down_s: float = 3600.0  # after it acted, it does nothing about the same model for so long
    models: tuple[str, ...] | None = None  # None: all


class FiredAlert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that fires. `label` is of the version that it names, "": it names none."""

    sequence: int
    name: str
    summary: str
    starts_at: float  # Unix seconds
    label: str = ""
    signal: str = ""  # of drift, that it is about


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment as the record has it. Times are Unix seconds."""

    environment: str
    model: str
    label: str  # of the live revision
    number: int
    action: str  # that made it: promote, rollback
    live_at: float
    settled: bool = True  # nothing else is warming up to take its place
    experiments: tuple[str, ...] = ()  # running ones that decide about the model's traffic
    acted_at: float | None = None  # when an alert last took something out here
    earlier: bool = True  # there is an earlier state to go back to
    asked_otherwise: bool = False  # the input of the live version has changed, or is about to be found to have


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, and why, in a sentence for people."""

    action: ActionName
    reason: str
    passing: bool = False  # what speaks against acting may cease to, while the alert fires on: nothing is settled


def decide(policy: AlertPolicy, alert: FiredAlert, standing: Standing, now: float) -> Decision:
    """What `alert` does to a deployment.

    A roll-back is never undone by an alert, an alert that began before the live revision did is not about it, and where an experiment or a
    promotion is under way these decide.
    """
    for holds, reason in _lasting(policy, alert, standing, now):
        if holds:
            return Decision(action="none", reason=reason)
    for holds, reason in _passing(policy, alert, standing, now):
        if holds:
            return Decision(action="none", reason=reason, passing=True)
    why = f"{alert.name} (alert {alert.sequence}): {alert.summary}"
    if policy.action == "rollback" and not standing.earlier:
        named = f"{standing.model}:{standing.label}"
        return Decision(action="none", reason=f"There is nothing earlier than {named} to go back to. {why}")
    if policy.action == "none":
        return Decision(action="none", reason=f"The policy of {standing.environment} only watches. {why}")
    return Decision(action=policy.action, reason=why)


def _lasting(policy: AlertPolicy, alert: FiredAlert, standing: Standing, now: float) -> Iterator[tuple[bool, str]]:
    """What speaks against acting for as long as this revision is live, and whether it holds; what is said first is told."""
    model, named = standing.model, f"{standing.model}:{standing.label}"
    other = bool(alert.label) and alert.label != standing.label
    yield other, f"{alert.name} is about {model}:{alert.label}; {named} is live."
    yield standing.action == "rollback", f"{named} was gone back to: a roll-back is not rolled back."
    yield alert.starts_at < standing.live_at, f"{alert.name} began before {named} went live."
    old = now - standing.live_at > policy.young_s
    yield old, f"{named} has been live for longer than {policy.young_s:.0f} s: it is not what has changed."


def _passing(policy: AlertPolicy, alert: FiredAlert, standing: Standing, now: float) -> Iterator[tuple[bool, str]]:
    """What speaks against acting for now, and whether it holds; what is said first is told."""
    model, named = standing.model, f"{standing.model}:{standing.label}"
    yield not standing.settled, f"Another revision of {model} is about to go live."
    yield bool(standing.experiments), f"The experiment {', '.join(standing.experiments)} decides about {model}."
    follows = bool(alert.signal) and standing.asked_otherwise
    yield follows, f"{named} is asked other things than it was: that its answers changed may follow from that."
    cooling = standing.acted_at is not None and now - standing.acted_at < policy.cool_down_s
    yield cooling, f"An alert has acted on {model} within the last {policy.cool_down_s:.0f} s."
