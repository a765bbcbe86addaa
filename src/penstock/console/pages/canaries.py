"""Canaries: one that is or was tried out, live, with its evidence as gauges toward their limits, and what may be done with it."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from penstock.console import figures
from penstock.console.client import at
from penstock.console.live import live
from penstock.console.shapes import Canary
from penstock.console.visit import Visit
from penstock.core.errors import NotFound
from penstock.experiments.guardrails import BAD_EVENTS
from penstock.experiments.verdict import Gauge

FRAGMENTS = ("standing", "evidence")
# What an action does, as its confirm page says it: the question, the consequence, the button, whether it is risky.
_ACTIONS = {
    "abort": ("Take {} back?", "All traffic goes to {} at once.", "Take it back", True),
    "promote": (
        "Give {} all of the traffic?",
        "It is live at once, without waiting for its plan. {} stays warm, and rolling back to it takes less than a second.",
        "Promote",
        False,
    ),
    "pause": (
        "Pause the canary of {}?",
        "All traffic goes to {} until it is resumed. What is known of it stays.",
        "Pause",
        False,
    ),
    "resume": ("Go on with {}?", "It gets the share back that it had. {} gets the rest.", "Go on", False),
}
_TITLES = {
    "running": ("{} is tried out.", "on"),
    "paused": ("The canary of {} is paused.", "on"),
    "promoted": ("{} was promoted.", "good"),
    "rolled_back": ("{} was rolled back.", "bad"),
    "aborted": ("{} was taken back by hand.", ""),
}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the ramp; `since` is empty while it has not begun."""

    share: float
    state: str  # done, now, ahead
    since: str


def headline(canary: Canary) -> tuple[str, str]:
    """Where it stands in a few words, and their tone (good, bad, on, or none)."""
    if canary.lapsed:
        return f"The share of {canary.label} has lapsed: nobody watches it.", "bad"
    words, tone = _TITLES.get(canary.state, ("{}", ""))
    return words.format(canary.label), tone


def ramp(canary: Canary) -> list[Step]:
    """Its steps, done and to come."""
    begun = {round(one.share, 9): one.started_at for one in canary.ramp}
    found = []
    for number, share in enumerate(canary.steps, 1):
        since = begun.get(round(share, 9))
        last = canary.state == "promoted" and share >= 1
        state = "ahead"
        if since is not None or last:
            going = canary.state in ("running", "paused") and number == canary.step
            state = "now" if going else "done"
        shown = canary.ended_at if last and since is None else since
        found.append(Step(share=share, state=state, since="" if shown is None else figures.when(shown)))
    return found


def gauges(canary: Canary) -> list[tuple[Gauge, str]]:
    """Each guardrail, and what it counts."""
    return [(gauge, BAD_EVENTS[gauge.metric]) for gauge in canary.guardrails]


def actions(canary: Canary) -> tuple[str, ...]:
    """What can be done with it."""
    return {"running": ("pause", "promote", "abort"), "paused": ("resume", "promote", "abort")}.get(canary.state, ())


async def show(visit: Visit) -> Response:
    """One canary."""
    return visit.page("canary.html", fragments=FRAGMENTS, **await _read(visit))


async def live_canary(visit: Visit) -> Response:
    """Its regions, again and again."""

    async def read() -> Mapping[str, str]:
        values = await _read(visit)
        return {name: visit.render(f"canary/{name}.html", **values) for name in FRAGMENTS}

    return await live(visit, read)


async def _read(visit: Visit) -> dict[str, Any]:
    canary = await visit.api.get(at("canaries", visit.path("name")), Canary)
    words, tone = headline(canary)
    return {
        "c": canary,
        "words": words,
        "tone": tone,
        "reasons": canary.words or (*canary.waits, *canary.verdict.reasons),
        "ramp": ramp(canary),
        "gauges": gauges(canary),
        "traffic": {one.arm: one for one in canary.arms},
        "actions": [one for one in actions(canary) if _may(visit, one)],
    }


def _may(visit: Visit, action: str) -> bool:
    """Whether the visitor may do it: pausing and resuming is done to the experiment that it is."""
    paused = action in {"pause", "resume"}
    return visit.may("deployments:write") and (not paused or visit.may("experiments:write"))


async def confirm(visit: Visit) -> Response:
    """Ask before a canary is taken back, promoted, paused or resumed."""
    visit.must("deployments:write")
    name, action = visit.path("name"), visit.path("action")
    if action not in _ACTIONS:
        raise NotFound(f"A canary knows no {action!r}.")
    canary = await visit.api.get(at("canaries", name), Canary)
    question, consequence, button, risky = _ACTIONS[action]
    return visit.page(
        "canary_action.html",
        c=canary,
        action=action,
        question=question.format(canary.label),
        consequence=consequence.format(canary.incumbent),
        button=button,
        risky=risky,
    )


async def act(visit: Visit) -> Response:
    """Do it."""
    form = await visit.form()
    name, action = visit.path("name"), visit.path("action")
    if action not in _ACTIONS:
        raise NotFound(f"A canary knows no {action!r}.")
    body: dict[str, Any] = {"reason": form.get("reason", "")}
    if action in ("pause", "resume"):
        await visit.api.post(at("experiments", name, "pause" if action == "pause" else "start"), body)
    else:
        if action == "abort":
            body["block"] = form.get("block") == "yes"
        await visit.api.post(at("canaries", name, action), body)
    return visit.to(at("canaries", name), f"canary-{action}")
