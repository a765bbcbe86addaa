"""Readiness by the ML Test Score: 28 tests in four groups of seven.

Breck, Cai, Nielsen, Salib, Sculley 2017, "The ML Test Score: A Rubric for ML Production Readiness and Technical Debt Reduction", IEEE Big Data.

A test gives half a point where somebody did it by hand and signed what came of it, and a whole one where a system does it again and again. A
group's score is the sum of its tests, the version's that of its weakest group (section VI of the paper).
"""

from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

Group = Literal["data", "model", "infrastructure", "monitoring"]
GROUPS: tuple[Group, ...] = get_args(Group)
BY_HAND, AUTOMATED = 0.5, 1.0


class Test(msgspec.Struct, frozen=True, kw_only=True):
    """One test: as the paper names it, and the command that supplies its evidence (`{ref}`: the version, `{model}`, `{label}`, `{env}`)."""

    __test__ = False  # nothing that pytest would collect

    id: str
    group: Group
    name: str
    command: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the system holds for a test: points (0: it was looked for, and speaks against it) and words."""

    points: float
    words: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's word that a test was done by hand, signed. `at` is in Unix seconds."""

    text: str
    principal: str
    signer: str
    at: float


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one test."""

    id: str
    group: Group
    name: str
    points: float
    words: str
    command: str  # what would supply it; "" if nothing is missing


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """The score, by group and as a whole, and what it means."""

    score: float
    groups: dict[str, float]
    meaning: str
    lines: tuple[Line, ...]


_ANSWER = 'penstock readiness {ref} --answer %s --text "..." --signer NAME'


def _test(identity: str, group: Group, name: str, command: str = "") -> Test:
    return Test(id=identity, group=group, name=name, command=command or _ANSWER % identity)


TESTS: tuple[Test, ...] = (
    _test("data-1", "data", "Feature expectations are captured in a schema"),
    _test("data-2", "data", "All features are beneficial"),
    _test("data-3", "data", "No feature's cost is too much"),
    _test("data-4", "data", "Features adhere to meta-level requirements", "penstock datasets register NAME -f FILE"),
    _test("data-5", "data", "The data pipeline has appropriate privacy controls", "penstock apply -f FILE"),
    _test("data-6", "data", "New features can be added quickly"),
    _test("data-7", "data", "All input feature code is tested", "penstock gates run {ref} --for {env}"),
    _test("model-1", "model", "Model specs are reviewed and submitted", "penstock approve {ref} --for {env}"),
    _test("model-2", "model", "Offline and online metrics correlate"),
    _test("model-3", "model", "All hyperparameters have been tuned"),
    _test("model-4", "model", "The impact of model staleness is known"),
    _test(
        "model-5", "model", "A simpler model is not better", "penstock models evaluate {model}:SMALLER --suite SUITE"
    ),
    _test(
        "model-6",
        "model",
        "Model quality is sufficient on important data slices",
        "penstock models evaluate {ref} --suite SUITE",
    ),
    _test(
        "model-7",
        "model",
        "The model is tested for considerations of inclusion",
        "penstock models evaluate {ref} --suite SUITE",
    ),
    _test(
        "infrastructure-1",
        "infrastructure",
        "Training is reproducible",
        "penstock models push DIR NAME:LABEL --meta FILE",
    ),
    _test("infrastructure-2", "infrastructure", "Model specs are unit tested"),
    _test("infrastructure-3", "infrastructure", "The ML pipeline is integration tested"),
    _test(
        "infrastructure-4",
        "infrastructure",
        "Model quality is validated before serving",
        "penstock gates run {ref} --for {env}",
    ),
    _test("infrastructure-5", "infrastructure", "The model is debuggable"),
    _test(
        "infrastructure-6",
        "infrastructure",
        "Models are canaried before serving",
        "penstock canary start {ref} --to {env}",
    ),
    _test(
        "infrastructure-7",
        "infrastructure",
        "Serving models can be rolled back",
        "penstock rollback {model} --in {env}",
    ),
    _test("monitoring-1", "monitoring", "Dependency changes result in notification"),
    _test("monitoring-2", "monitoring", "Data invariants hold for inputs", "penstock promote {ref} --to {env}"),
    _test("monitoring-3", "monitoring", "Training and serving are not skewed"),
    _test("monitoring-4", "monitoring", "Models are not too stale"),
    _test("monitoring-5", "monitoring", "Models are numerically stable", "penstock apply -f FILE"),
    _test("monitoring-6", "monitoring", "Computing performance has not regressed", "penstock promote {ref} --to {env}"),
    _test(
        "monitoring-7", "monitoring", "Prediction quality has not regressed on served data", "penstock apply -f FILE"
    ),
)
# From a score on: what it means (table V of the paper).
_MEANINGS: tuple[tuple[float, str], ...] = (
    (5.0, "Exceptional levels of automated testing and monitoring."),
    (3.0, "Strong levels of automated testing and monitoring, appropriate for mission-critical systems."),
    (2.0, "Reasonably tested, but it is possible that more of those tests and procedures may be automated."),
    (1.0, "There has been a first pass at basic productionization, but additional investment may be needed."),
    (0.0, "Not totally untested, but it is worth considering the possibility of serious holes in reliability."),
)
_NOTHING = "More of a research project than a productionized system."


def score(
    found: Mapping[str, Evidence], answers: Mapping[str, Answer], *, model: str, label: str, environment: str
) -> Readiness:
    """The score of NAME:LABEL by what the system holds and by what people have signed; of each test the better of the two counts."""
    names = {"ref": f"{model}:{label}", "model": model, "label": label, "env": environment}
    lines = tuple(_line(test, found.get(test.id), answers.get(test.id), names) for test in TESTS)
    groups: dict[str, float] = {group: sum(line.points for line in lines if line.group == group) for group in GROUPS}
    lowest = min(groups.values())
    meaning = next((words for least, words in _MEANINGS if lowest > least), _NOTHING)
    return Readiness(score=lowest, groups=groups, meaning=meaning, lines=lines)


def _line(test: Test, evidence: Evidence | None, answer: Answer | None, names: Mapping[str, str]) -> Line:
    points = evidence.points if evidence is not None else 0.0
    words = evidence.words if evidence is not None else "Nothing here tells."
    if answer is not None and points < BY_HAND:
        points, words = BY_HAND, f"By hand, says {answer.principal}, signed by {answer.signer}: {answer.text}"
    command = test.command.format(**names) if points < AUTOMATED else ""
    return Line(id=test.id, group=test.group, name=test.name, points=points, words=words, command=command)
