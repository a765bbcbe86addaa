"""Every word for what an experiment measures has a metric, on the page and in the code, whose value differs where the arms do."""

import re
from pathlib import Path
from typing import Any

import pytest

from penstock.core.exchange import Finding, Phases, Usage
from penstock.experiments.compare import difference
from penstock.experiments.counted import UnitRecord
from penstock.experiments.metrics import METRICS
from penstock.experiments.paired_metrics import PAIRED
from penstock.experiments.statistics import quantile
from tests.experiments.test_analysis import Run, design_of, event

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "experiments.md"
WORDS = {
    "response time": ("latency", "latency_p95", "time_to_first_token", "time_to_first_token_p95"),
    "token throughput": ("tokens_per_second",),
    "resources": ("replica_seconds", "completion_tokens", "cost"),
    "errors": ("error_rate", "completion"),
    "ratings": ("rating",),
    "task success": ("success",),
    "relevance": ("relevance",),
    "judged quality": ("judge_score", "win_rate", "judged", "preference"),
    "conversion": ("conversion",),
    "retention": ("retention",),
    "session length": ("session_length",),
    "harmful content": ("findings", "refusal", "reports"),
    "toxicity": ("toxicity",),
    "factual accuracy": ("accuracy",),
}
SECOND = 10**9
UNITS = 40


def answered(seconds: float, tokens: int, **changes: Any) -> dict[str, Any]:
    """An answer that streams from a tenth of its time on."""
    last = round(seconds * SECOND)
    phases = Phases(0, 0, last // 20, last // 10, last, last)
    return {"phases": phases, "usage": Usage(10, tokens), "stream": True, "outcome": "ok", "status": 200} | changes


def tell(run: Run, unit: UnitRecord, **values: float) -> None:
    for name, value in values.items():
        run.happened(unit, event(name, value))


def both_arms(**of_treatment: Any) -> Run:
    """Forty units an arm; each third of them is unlike the others, so that something varies."""
    run = Run(design_of())
    for number in range(UNITS):
        odd = number % 3 == 0
        for arm in ("control", "treatment"):
            worse = arm == "treatment"
            seconds = (2.0 if worse else 1.0) + 0.1 * odd
            changes: dict[str, Any] = {"cost_nanousd": (3000 if worse else 1000) + 10 * odd}
            if worse and odd:
                changes["findings"] = (Finding("words", "flag", "output"),)
            unit = run.unit(arm, **answered(seconds, 25 if worse else 20 + odd, **changes))
            if worse and number % 4 == 0:
                run.unit(arm, **answered(seconds, 0, outcome="error", status=502))
                run.unit(arm, phases=Phases(done=5), outcome="refused", status=400)
            run.told(unit, success=not worse or odd)
            run.folding.told(unit, 1, "rating", -1_000_000 if worse and not odd else 1_000_000, 1)
            if worse and odd:
                run.folding.told(unit, 1, "reports", 1, 1)
            if not worse or odd:
                run.folding.told(unit, 1, "conversion", 1, 1)
                run.happened(unit, event("retention"))
            low, high = (0.2 + 0.1 * odd, 0.7 + 0.1 * odd)
            good, bad = (low, high) if worse else (high, low)
            tell(
                run,
                unit,
                session_length=600 * good,
                relevance=good,
                accuracy=good,
                judge_score=good,
                win_rate=good,
                toxicity=bad,
            )
    return run


@pytest.fixture(scope="module")
def run() -> Run:
    return both_arms()


def told_apart() -> list[str]:
    return sorted({name for names in WORDS.values() for name in names if name in METRICS})


@pytest.mark.parametrize("name", told_apart())
def test_the_metric_says_which_arm_is_worse(run: Run, name: str) -> None:
    """The treatment is slower, dearer, longer, less right and more harmful."""
    metric = METRICS[name]
    worse = -1 if metric.direction == "up" else 1
    if metric.quantile is not None:
        control, treatment = (
            quantile(run.statistics.histograms[1, arm, name], 0.5) for arm in ("control", "treatment")
        )
        assert control is not None and treatment is not None
        assert (treatment - control) * worse > 0
        return
    found = difference(run.design, run.statistics, metric, "treatment")
    assert found is not None
    assert found.estimate * worse > 0, (name, found)
    for arm in ("control", "treatment"):
        assert run.moments(arm, name).units >= 1


def test_token_throughput_is_tokens_by_the_time_that_a_replica_was_at_it() -> None:
    run = Run(design_of())
    run.unit("control", **answered(2.0, 40))
    run.unit("treatment", **answered(2.0, 10))
    for arm, tokens in (("control", 40), ("treatment", 10)):
        moments = run.moments(arm, "tokens_per_second")
        assert moments.top / moments.bottom * METRICS["tokens_per_second"].scale == pytest.approx(tokens / 1.9)
        held = run.moments(arm, "replica_seconds")
        assert held.top * METRICS["replica_seconds"].scale == pytest.approx(1.9)


def test_the_page_says_which_metric_answers_which_word() -> None:
    section = PAGE.read_text().split("## Which metric answers which word\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([a-z ]+) \| ([^|]+) \|", section, re.MULTILINE)
    assert {word: tuple(re.findall(r"`(\w+)`", names)) for word, names in rows if word != "word"} == WORDS
    assert all(name in METRICS or name in PAIRED for names in WORDS.values() for name in names)
