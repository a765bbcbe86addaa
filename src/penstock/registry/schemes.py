"""Version schemes: semantic (`v1.2.3`), by date (`2023-09-15`, `20230915`), by training run (`run123`, `experiment456-run789`).

Labels of one scheme are ordered; labels of different schemes are not comparable. Semantic precedence is that of semver.org 2.0.0,
section 11. Digits are ASCII and numbers have no leading zeros, so that two labels are equal in order only if they are two spellings of one
day (`twin`).
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

_SEMANTIC = re.compile(r"v([0-9]{1,18}\.[0-9]{1,18}\.[0-9]{1,18}(?:-[0-9A-Za-z.-]{1,96})?)")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})|([0-9]{4})([0-9]{2})([0-9]{2})")
_NUMBER = "0|[1-9][0-9]{0,17}"
_LARGEST = 10**18 - 1
_PRE = re.compile(r"[A-Za-z][A-Za-z-]{0,31}")
_RUN = re.compile(f"(?:experiment({_NUMBER})-)?run({_NUMBER})")


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


def twin(label: Label) -> str | None:
    """The other spelling of the same label: `20230915` for `2023-09-15` and the reverse; None if there is none."""
    if label.date is None:
        return None
    return label.date.isoformat().replace("-", "") if "-" in label.text else label.date.isoformat()


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
    labels: Iterable[Label],
    scheme: Scheme,
    *,
    today: dt.date,
    bump: Bump = "minor",
    pre: str | None = None,
    compact: bool | None = None,
    experiment: int | None = None,
) -> str:
    """A label of `scheme` after all of `labels`.

    Args:
        labels: those that are taken.
        scheme: which to follow.
        today: for the date scheme: this day, or the day after the newest if that is not before it.
        bump: for the semantic scheme; of a newest label that is a pre-release, its release comes next.
        pre: for the semantic scheme: suggest a pre-release of this name (`rc`: `v1.3.0-rc.1`, then `v1.3.0-rc.2`).
        compact: for the date scheme: `20230915` in place of `2023-09-15`; None: as the newest is written.
        experiment: for the run scheme: the next run of this experiment; None: of the newest label's.

    Raises:
        BadRequest: if `pre` is no name of a pre-release, or nothing can come after the newest.
    """
    taken = list(labels)
    last = newest(taken, scheme)
    if scheme == "semantic":
        return _next_semantic(last, bump, pre)
    if scheme == "date":
        return _next_date(last, today, compact)
    if experiment is not None:
        runs = [one for one in taken if one.experiment == experiment]
        last = newest(runs, "run")
        return f"experiment{experiment}-run{_after(last.run if last is not None else None, '')}"
    if last is None:
        return "run1"
    prefix = f"experiment{last.experiment}-" if last.experiment is not None else ""
    return f"{prefix}run{_after(last.run, last.text)}"


def _next_semantic(last: Label | None, bump: Bump, pre: str | None) -> str:
    if pre is not None and _PRE.fullmatch(pre) is None:
        raise BadRequest(f"{pre!r} is no name of a pre-release: use letters, such as rc.", param="pre")
    now = last.semantic if last is not None else None
    if now is None:
        following = semver.Version(1, 0, 0)
    elif not now.prerelease:
        following = now.next_version(bump)
    elif pre is None:
        return f"v{now.finalize_version()}"
    else:
        name, _, number = now.prerelease.rpartition(".")
        if name == pre and number.isdecimal():
            return f"v{now.finalize_version()}-{pre}.{int(number) + 1}"
        following = now.finalize_version()
        if now < following.replace(prerelease=f"{pre}.1"):
            return f"v{following}-{pre}.1"
        following = now.finalize_version().next_version(bump)
    return f"v{following}" if pre is None else f"v{following}-{pre}.1"


def _next_date(last: Label | None, today: dt.date, compact: bool | None) -> str:
    day = today
    if last is not None and last.date is not None:
        if last.date == dt.date.max:
            raise BadRequest(f"No day comes after {last.text}.", param="scheme")
        day = max(today, last.date + dt.timedelta(days=1))
    short = "-" not in last.text if compact is None and last is not None else bool(compact)
    return day.isoformat().replace("-", "") if short else day.isoformat()


def _after(run: int | None, text: str) -> int:
    if run is not None and run >= _LARGEST:
        raise BadRequest(f"No run comes after {text}.", param="scheme")
    return 1 if run is None else run + 1
