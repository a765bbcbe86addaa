"""Version schemes: semantic (`v1.2.3`), by date (`2023-09-15`, `20230915`), by training run (`run123`, `experiment456-run789`).

Labels of one scheme are ordered; labels of different schemes are not comparable. Semantic precedence is that of semver.org 2.0.0,
section 11.
"""

import datetime as dt
import re
from collections.abc import Iterable
from typing import Literal

import msgspec
import semver

from penstock.core.errors import BadRequest

Scheme = Literal["semantic", "date", "run"]
Bump = Literal["major", "minor", "patch"]

_SEMANTIC = re.compile(r"v(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)")
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})|(\d{4})(\d{2})(\d{2})")
_RUN = re.compile(r"(?:experiment(\d{1,18})-)?run(\d{1,18})")


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """A label that follows a scheme."""

    text: str
    scheme: Scheme
    semantic: semver.Version | None = None
    date: dt.date | None = None
    experiment: int | None = None
    run: int | None = None


def parse_label(text: str) -> Label:
    """The label written as `text`.

    Raises:
        BadRequest: if it follows none of the schemes.
    """
    if match := _SEMANTIC.fullmatch(text):
        try:
            return Label(text=text, scheme="semantic", semantic=semver.Version.parse(match[1]))
        except ValueError:
            raise BadRequest(
                f"{text!r} is not a semantic version: {match[1]} breaks its rules.", param="label"
            ) from None
    if match := _DATE.fullmatch(text):
        year, month, day = (int(part) for part in match.groups() if part is not None)
        try:
            return Label(text=text, scheme="date", date=dt.date(year, month, day))
        except ValueError:
            raise BadRequest(f"{text!r} is no day of the calendar.", param="label") from None
    if match := _RUN.fullmatch(text):
        experiment = int(match[1]) if match[1] is not None else None
        return Label(text=text, scheme="run", experiment=experiment, run=int(match[2]))
    raise BadRequest(
        f"{text!r} follows no version scheme: use v1.2.3 or v1.2.3-rc.1, 2023-09-15 or 20230915, run123 or experiment456-run789.",
        param="label",
    )


def compare(a: Label, b: Label) -> int:
    """Below 0 if `a` comes before `b`, 0 if they are equal in order, above 0 if after.

    A run without an experiment comes before all with one.

    Raises:
        BadRequest: if they follow different schemes.
    """
    if a.scheme != b.scheme:
        raise BadRequest(f"{a.text} and {b.text} follow different schemes and cannot be compared.", param="label")
    if a.semantic is not None and b.semantic is not None:
        return int(a.semantic.compare(b.semantic))
    if a.date is not None and b.date is not None:
        return (a.date > b.date) - (a.date < b.date)
    left = (-1 if a.experiment is None else a.experiment, a.run or 0)
    right = (-1 if b.experiment is None else b.experiment, b.run or 0)
    return (left > right) - (left < right)


def newest(labels: Iterable[Label], scheme: Scheme) -> Label | None:
    """The last of those `labels` that follow `scheme`; None if none does."""
    best: Label | None = None
    for label in labels:
        if label.scheme == scheme and (best is None or compare(label, best) > 0):
            best = label
    return best


def suggest_next(
    labels: Iterable[Label], scheme: Scheme, *, today: dt.date, bump: Bump = "minor", compact: bool = False
) -> str:
    """A label of `scheme` after all of `labels`.

    Args:
        labels: those that are taken.
        scheme: which to follow.
        today: for the date scheme: this day, or the day after the newest if that is not before it.
        bump: for the semantic scheme.
        compact: for the date scheme: `20230915` in place of `2023-09-15`.
    """
    last = newest(labels, scheme)
    if scheme == "semantic":
        if last is None or last.semantic is None:
            return "v1.0.0"
        if last.semantic.prerelease:
            return f"v{last.semantic.finalize_version()}"
        return f"v{last.semantic.next_version(bump)}"
    if scheme == "date":
        day = today
        if last is not None and last.date is not None and last.date >= today:
            day = last.date + dt.timedelta(days=1)
        return day.strftime("%Y%m%d") if compact else day.isoformat()
    if last is None or last.run is None:
        return "run1"
    prefix = f"experiment{last.experiment}-" if last.experiment is not None else ""
    return f"{prefix}run{last.run + 1}"
