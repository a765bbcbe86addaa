"""From what was seen to what is wrong: all rules, and then what explains what."""

from collections.abc import Callable, Iterator

from penstock.diagnosis import configuration, processes, records, serving
from penstock.diagnosis.cause import Cause
from penstock.diagnosis.explained import explained
from penstock.diagnosis.seen import Seen

RULES: tuple[Callable[[Seen], Iterator[Cause]], ...] = (
    processes.judge,
    records.judge,
    serving.judge,
    configuration.judge,
)


def diagnose(seen: Seen) -> list[Cause]:
    """What is wrong, the most likely cause first; empty if nothing is."""
    return explained([cause for judge in RULES for cause in judge(seen)], seen)


def healthy(causes: list[Cause]) -> bool:
    """Whether nothing suffers: warnings are allowed."""
    return not any(cause.state == "wrong" for cause in causes)
