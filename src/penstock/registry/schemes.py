"""The three ways to label versions: semantic (`v2.1.3`), by date (`2023-09-15`, `20230915`), by training run (`run123`, `experiment456-run789`).

Semantic labels follow Semantic Versioning 2.0.0, with a leading v; build metadata (`+...`) is refused, since two labels that differ
in it alone would be equal in order.
"""

import datetime as dt
import re
from typing import Literal

import msgspec
import semver

from penstock.core.errors import BadRequest

Scheme = Literal["semantic", "date", "run"]

_DATE = re.compile(r"([0-9]{4})(-?)([0-9]{2})\2([0-9]{2})")
_RUN = re.compile(r"(?:experiment(0|[1-9][0-9]{0,17})-)?run(0|[1-9][0-9]{0,17})")


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """A label that was understood."""

    text: str
    scheme: Scheme


def parse_label(text: str) -> Label:
    """The label written as `text`, with its scheme.

    Raises:
        BadRequest: if it follows none of the three schemes; the message shows one of each.
    """
    if text.startswith("v") and semver.Version.is_valid(text[1:]) and "+" not in text:
        return Label(text=text, scheme="semantic")
    if _date(text) is not None:
        return Label(text=text, scheme="date")
    if _RUN.fullmatch(text):
        return Label(text=text, scheme="run")
    raise BadRequest(
        f"{text!r} is not a version label: write v1.2.3, 2023-09-15, 20230915, run123 or experiment4-run56.",
        param="label",
    )


def compare(one: Label, other: Label) -> int:
    """-1, 0 or 1, as `one` comes before, with or after `other`.

    Raises:
        BadRequest: if they follow different schemes: there is no order between these.
    """
    if one.scheme != other.scheme:
        raise BadRequest(f"{one.text} and {other.text} follow different schemes and have no order.", param="label")
    if one.scheme == "semantic":
        return semver.Version.parse(one.text[1:]).compare(other.text[1:])
    if one.scheme == "date":
        a, b = _date(one.text), _date(other.text)
        assert a is not None
        assert b is not None
        return (a > b) - (a < b)
    x, y = _run(one.text), _run(other.text)
    return (x > y) - (x < y)


def suggest_next(labels: list[Label], today: dt.date, *, change: Literal["major", "minor", "patch"] = "patch") -> str:
    """The label that would follow the newest of `labels` (oldest first), in its scheme.

    Args:
        labels: those a model has, in order of commit; may be empty.
        today: for labels by date. A date that is taken is followed by the day after the newest.
        change: which part of a semantic version to raise.
    """
    if not labels:
        return "v1.0.0"
    scheme = labels[-1].scheme
    newest = labels[-1]
    for label in labels:
        if label.scheme == scheme and compare(label, newest) > 0:
            newest = label
    if scheme == "semantic":
        version = semver.Version.parse(newest.text[1:])
        return f"v{version.finalize_version() if version.prerelease else version.next_version(change)}"
    if scheme == "date":
        last = _date(newest.text)
        assert last is not None
        day = today if today > last else last + dt.timedelta(days=1)
        return day.isoformat() if "-" in newest.text else day.strftime("%Y%m%d")
    head, run = newest.text.rsplit("run", 1)
    return f"{head}run{int(run) + 1}"


def _date(text: str) -> dt.date | None:
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    try:
        return dt.date(int(match[1]), int(match[3]), int(match[4]))
    except ValueError:
        return None


def _run(text: str) -> tuple[int, int]:
    match = _RUN.fullmatch(text)
    assert match is not None
    return int(match[1] or -1), int(match[2])
