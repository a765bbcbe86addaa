"""What the console reads of the API's answers about experiments; see `shapes`."""

import msgspec

from penstock.experiments.bandit_run import Contender
from penstock.experiments.comparisons import Comparison, LookMade
from penstock.experiments.design import Design
from penstock.experiments.pairs import Forecast
from penstock.experiments.progress import Progress
from penstock.experiments.ranking import Ranked
from penstock.experiments.verdict import ArmTraffic, Gauge, SampleRatio
from penstock.experiments.votes import Votes


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an experiment; lists tell the state and the reasons alone."""

    state: str = "running"
    reasons: tuple[str, ...] = ()
    arm: str = ""
    at: float = 0.0
    arms: tuple[ArmTraffic, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    guardrails: tuple[Gauge, ...] = ()
    mismatch: SampleRatio | None = None
    progress: tuple[Progress, ...] = ()
    looks: tuple[LookMade, ...] = ()
    contenders: tuple[Contender, ...] = ()
    votes: tuple[Votes, ...] = ()
    forecasts: tuple[Forecast, ...] = ()
    ranking: tuple[Ranked, ...] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """How an experiment ended; `serving` is the arm that has all traffic, empty if the route's own targets have."""

    by: str = ""
    at: float = 0.0
    serving: str = ""


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment in a list."""

    name: str
    state: str
    route: str = ""
    hypothesis: str = ""
    control: str = ""
    arms: tuple[str, ...] = ()
    verdict: Judged = Judged()
    decision: Decision | None = None
    created_at: float = 0.0
    created_by: str = ""
    started_at: float | None = None


class Experiments(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, newest first."""

    experiments: tuple[Experiment, ...] = ()


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """Units an arm, for the kind of inference that was chosen."""

    inference: str = "always_valid"
    units: int = 0


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of time with the same shares."""

    epoch: int
    started_at: float
    shares: dict[str, float] = {}


class ArmBuild(msgspec.Struct, frozen=True, kw_only=True):
    """The version that an arm was when the experiment started."""

    model: str
    label: str


class ResolvedArm(msgspec.Struct, frozen=True, kw_only=True):
    """What an arm was when the experiment started; no build: a pool."""

    build: ArmBuild | None = None


class WholeExperiment(Experiment, frozen=True, kw_only=True):
    """All about one experiment."""

    spec: Design
    resolved: dict[str, ResolvedArm] = {}
    shares: dict[str, float] = {}
    planned: Planned = Planned()
    actions: tuple[str, ...] = ()
    deployment: str | None = None  # the model whose canary it is
    epochs: tuple[Epoch, ...] = ()


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What was known of one metric of one treatment at one moment."""

    at: float
    metric: str
    arm: str
    n: int = 0
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None


class Looks(msgspec.Struct, frozen=True, kw_only=True):
    """Oldest first."""

    points: tuple[Look, ...] = ()
