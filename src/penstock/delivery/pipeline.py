"""Pipelines: the steps from files to production, and what to do next in one of them. Pure: what is seen of the world in, a move out."""

from typing import Literal

import msgspec

StepKind = Literal["push", "scan", "build", "gate", "promote", "canary"]
EndState = Literal["done", "refused", "failed"]
Deed = Literal["scan", "build", "evaluate", "promote", "canary"]
OVER = ("done", "refused", "failed", "cancelled")
PUSH_S = 86400.0  # a pipeline whose files have not come by then has failed
ASKS = 3  # so often a step has evaluations made that do not settle its gates
_UNDER_WAY = ("queued", "running", "storing")
# Refusals that another moment may not repeat: somebody else's change is under way.
_PASSING = frozenset(
    ("canary_running", "promotion_under_way", "generation_conflict", "unavailable", "database_unavailable")
)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step that is under way.

    Attributes:
        environment: of gates and deployments; else "".
        since: when it began, Unix seconds.
        asks: how often it had something done: scanned, built, evaluated.
        waits_since: when it began to wait for people; None: it does not.
    """

    kind: StepKind
    environment: str = ""
    since: float = 0.0
    asks: int = 0
    waits_since: float | None = None


class GateFound(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one gate: passed, failed or missing; `command` would supply it."""

    gate: str
    state: str
    words: str
    command: str = ""

    @property
    def measured(self) -> bool:
        """Whether evaluations supply it; all else is people's to give."""
        return self.gate in ("scan", "smoke") or self.gate.startswith("suite ")


class EvaluationSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation that the step asked for."""

    what: str
    state: str
    done: int = 0
    total: int = 1
    detail: str = ""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the world shows of what a step is about; fields of other kinds of steps are left as they are.

    Attributes:
        pushed: digest of the version that has the label; "": none.
        wanted: digest that the pipeline is for.
        scan: whether a scan found nothing; None: there was none. `words` say what it found.
        build: folder of the build that is to run; "": there is none.
        building: state of the job that makes it: "" (none), queued, running, storing, failed, cancelled; `words` say why.
        gates: None: the environment asks nothing. They are not judged while evaluations are under way.
        evaluations: that the step asked for.
        revision: state of the revision that the step made; "": none yet. `words` say why it failed.
        canary: state of the canary that the step began; "": none yet. `words` say how it goes or ended.
        live: what is live in the environment is the very build that is to run.
        occupied: something of the model is live there.
    """

    pushed: str = ""
    wanted: str = ""
    scan: bool | None = None
    build: str = ""
    building: str = ""
    gates: tuple[GateFound, ...] | None = None
    evaluations: tuple[EvaluationSeen, ...] = ()
    revision: str = ""
    canary: str = ""
    live: bool = False
    occupied: bool = False
    words: str = ""


class Wait(msgspec.Struct, frozen=True, kw_only=True, tag="wait"):
    """Nothing is to be done now. `people`: it is they who are waited for."""

    words: str
    people: bool = False


class Act(msgspec.Struct, frozen=True, kw_only=True, tag="act"):
    """Something is to be done."""

    deed: Deed


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """The step is over; any other state than done ends its pipeline."""

    state: EndState
    words: str


Move = Wait | Act | End


def plan_steps(environments: tuple[str, ...], *, served: str) -> tuple[tuple[StepKind, str], ...]:
    """The steps of a pipeline through `environments`, in order; `served` is the one whose traffic gateways serve: it gets a canary."""
    steps: list[tuple[StepKind, str]] = [("push", ""), ("scan", ""), ("build", "")]
    for environment in environments:
        steps += [("gate", environment), ("canary" if environment == served else "promote", environment)]
    return tuple(steps)


def decide(step: Step, seen: Seen, *, now: float, patience_s: float) -> Move:
    """What to do next in `step`.

    Args:
        step: under way.
        seen: of the world, for this kind of step.
        now: Unix seconds.
        patience_s: how long people are waited for; 0: not at all.
    """
    if step.kind == "push":
        return _push(step, seen, now)
    if step.kind == "scan":
        return _scan(seen)
    if step.kind == "build":
        return _build(step, seen)
    if step.kind == "gate":
        return _gate(step, seen, now, patience_s)
    return _deploy(step, seen)


def after_refusal(code: str, message: str) -> Move:
    """What follows when carrying out a move was refused: to try again, where what is in the way passes; else the step's end."""
    return Wait(words=message) if code in _PASSING else End(state="refused", words=message)


def _push(step: Step, seen: Seen, now: float) -> Move:
    if seen.pushed == seen.wanted:
        return End(state="done", words="Its files are committed.")
    if seen.pushed:
        return End(state="refused", words="The label was given to other files meanwhile; a label is never used again.")
    if now - step.since >= PUSH_S:
        return End(state="failed", words=f"Its files did not come within {PUSH_S / 3600:.0f} hours.")
    return Wait(words="It waits for the files: whoever pushes sends them.")


def _scan(seen: Seen) -> Move:
    if seen.scan is None:
        return Act(deed="scan")
    return End(state="done" if seen.scan else "refused", words=seen.words)


def _build(step: Step, seen: Seen) -> Move:
    if seen.build:
        return End(state="done", words=f"{seen.build} is there.")
    if seen.building in _UNDER_WAY:
        return Wait(words=seen.words)
    if step.asks == 0:
        return Act(deed="build")
    return End(state="failed", words=f"It could not be built. {seen.words}")


def _gate(step: Step, seen: Seen, now: float, patience_s: float) -> Move:
    if seen.gates is None:
        return End(state="done", words=f"{step.environment} asks nothing of it.")
    going = [one for one in seen.evaluations if one.state in _UNDER_WAY]
    if going:
        return Wait(words="Evaluated: " + ", ".join(f"{one.what} {one.done} of {one.total}" for one in going) + ".")
    still = [one for one in seen.gates if one.state != "passed"]
    if not still:
        names = ", ".join(one.gate for one in seen.gates)
        return End(
            state="done", words=f"Passed: {names}." if names else f"{step.environment} asks nothing of this model."
        )
    missing = [one for one in still if one.state == "missing"]
    if any(one.measured for one in missing):
        broken = [one for one in seen.evaluations if one.state in ("failed", "cancelled")]
        if broken:
            told = " ".join(f"{one.what} {one.state}: {one.detail}" for one in broken)
            return End(state="failed", words=f"An evaluation could not be made. {told}")
        if step.asks >= ASKS:
            return End(state="failed", words=f"What was evaluated {ASKS} times does not settle it. {_told(missing)}")
        return Act(deed="evaluate")
    if len(missing) < len(still):
        return End(state="refused", words=_told([one for one in still if one.state == "failed"]))
    since = step.waits_since if step.waits_since is not None else now
    if now - since >= patience_s:
        return End(state="refused", words=_told(missing))
    return Wait(words=f"It waits for people. {_told(missing)}", people=True)


def _told(gates: list[GateFound]) -> str:
    return " ".join(f"{one.gate}: {one.words}" + (f" [{one.command}]" if one.command else "") for one in gates)


def _deploy(step: Step, seen: Seen) -> Move:
    if seen.canary:
        if seen.canary == "promoted":
            return End(state="done", words=seen.words)
        return Wait(words=seen.words) if seen.canary == "running" else End(state="refused", words=seen.words)
    if seen.revision:
        if seen.revision == "pending":
            return Wait(words="Its replicas are loading.")
        if seen.revision == "failed":
            return End(state="failed", words=seen.words or "Its replicas do not start.")
        return End(state="done", words=f"It is live in {step.environment}.")
    if seen.live:
        return End(state="done", words=f"It was live in {step.environment} already.")
    return Act(deed="canary" if step.kind == "canary" and seen.occupied else "promote")
