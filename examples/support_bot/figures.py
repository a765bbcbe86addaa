"""Sums of scores: shares with their 95 % intervals, as a table for people and as a mapping for programs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.support_bot.scoring import Score
from examples.support_bot.shop import OFF_TOPIC

# Name in a version's metadata -> the figure, and whether more of it is better.
METRICS = {
    "right": ("in-scope questions answered right", True),
    "order_numbers": ("order numbers in answers that were asked about", True),
    "refused": ("off-topic questions refused", True),
    "wrongly_refused": ("in-scope questions wrongly refused", False),
    "invented": ("answers with an invented fact", False),
}
START, END = "<!-- figures: made by evaluate.py, do not edit -->", "<!-- end of figures -->"


@dataclass(frozen=True, kw_only=True)
class Share:
    """`hits` of `total`."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        """Between 0 and 1; not a number where nothing was counted."""
        return self.hits / self.total if self.total else math.nan

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Wilson (1927), "Probable inference, the law of succession, and statistical inference"."""
        return wilson(self.hits, self.total)


def wilson(hits: int, total: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Lower and upper end of a share's score interval; (0, 1) where nothing was counted."""
    if total == 0:
        return 0.0, 1.0
    share = hits / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    below = 1 + z * z / total
    return max(0.0, (middle - spread) / below), min(1.0, (middle + spread) / below)


def summed(judged: Iterable[tuple[str, Score]]) -> dict[str, Share]:
    """The five figures of a list of (expected intent, score)."""
    rows = list(judged)
    inside = [score for intent, score in rows if intent != OFF_TOPIC]
    outside = [score for intent, score in rows if intent == OFF_TOPIC]

    def share(hits: Iterable[bool], total: int) -> Share:
        return Share(hits=sum(hits), total=total)

    return {
        "in-scope questions answered right": share((s.right for s in inside), len(inside)),
        "order numbers in answers that were asked about": Share(
            hits=sum(s.orders_right for _, s in rows), total=sum(len(s.orders) for _, s in rows)
        ),
        "off-topic questions refused": share((s.said == OFF_TOPIC for s in outside), len(outside)),
        "in-scope questions wrongly refused": share((s.said == OFF_TOPIC for s in inside), len(inside)),
        "answers with an invented fact": share((s.invented for _, s in rows), len(rows)),
    }


def table(figures: dict[str, Share]) -> str:
    """A Markdown table."""
    lines = ["| figure | share | 95 % interval | count |", "|---|---|---|---|"]
    for name, share in figures.items():
        low, high = share.interval()
        value = f"{share.value:.1%}" if share.total else "none"
        lines.append(f"| {name} | {value} | {low:.1%} to {high:.1%} | {share.hits} of {share.total} |")
    return "\n".join(lines)


def as_json(figures: dict[str, Share]) -> dict[str, dict[str, float]]:
    """Plain values for json.dumps."""
    return {
        name: {"share": s.value, "low": s.interval()[0], "high": s.interval()[1], "hits": s.hits, "total": s.total}
        for name, s in figures.items()
    }


def as_metrics(figures: dict[str, Share], dataset: str) -> dict[str, dict[str, Any]]:
    """The figures as `metrics` of a version's metadata, to three places; `dataset` is the record of the questions."""
    found = {}
    for metric, (name, higher) in METRICS.items():
        share = figures[name]
        low, high = share.interval()
        values = {"value": share.value, "lower": low, "upper": high}
        rounded = {field: round(value, 3) for field, value in values.items()}
        found[metric] = {**rounded, "count": share.total, "dataset": dataset, "higher_is_better": higher}
    return found


def write_card(card: Path, heading: str, figures: dict[str, Share]) -> None:
    """Replaces what stands between the card's markers. Raises ValueError where it has none."""
    write_between(card, (START, END), f"{heading}\n\n{table(figures)}")


def write_between(card: Path, markers: tuple[str, str], told: str) -> None:
    """Replaces what stands between two markers. Raises ValueError where the card has none."""
    start, end = markers
    text = card.read_text(encoding="utf-8")
    if start not in text or end not in text:
        raise ValueError(f"{card} has no markers {start!r} and {end!r}")
    before, rest = text.split(start, 1)
    after = rest.split(end, 1)[1]
    card.write_text(f"{before}{start}\n{told}\n{end}{after}", encoding="utf-8")
