"""Two answers as one: team-draft interleaving of lists and paragraphs.

As captains pick players: in each round chance says who picks first, and each picks the first of its own that has not been picked yet, by
whomever (Radlinski, Kurup and Joachims 2008, "How does clickthrough data reflect retrieval quality?", CIKM, section 5). Whose item is
preferred tells whose answer is.
"""

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

_ITEM = re.compile(r"^ {0,3}(?:[-*+\u2022]|(\d{1,3})[.)]) +\S", re.MULTILINE)
_MARK = re.compile(r"^ {0,3}(?:[-*+\u2022]|\d{1,3}[.)]) +")
_WORDS = re.compile(r"\w+")
LEAST = 2  # items of each answer


class Parts(NamedTuple):
    """An answer in parts: what stands before the first one, and the parts; of a list without their marks."""

    kind: Literal["list", "numbers", "paragraphs"]
    head: str
    items: tuple[str, ...]


class Drafted(NamedTuple):
    """The text put together, and whose each of its parts is: 0 the first answer's, 1 the other's."""

    text: str
    teams: tuple[int, ...]


def parts_of(text: str) -> Parts | None:
    """The list or the paragraphs that `text` consists of; None if it has fewer than two."""
    starts = [found.start() for found in _ITEM.finditer(text)]
    if len(starts) >= LEAST:
        ends = [*starts[1:], len(text)]
        items = [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
        last, _, _after = items[-1].partition("\n\n")  # what follows the list is no part of it
        numbered = all(item.lstrip()[0].isdigit() for item in items)
        return Parts(
            "numbers" if numbered else "list",
            text[: starts[0]].strip(),
            tuple(_MARK.sub("", item, count=1) for item in (*items[:-1], last)),
        )
    paragraphs = tuple(part.strip() for part in re.split(r"\n\s*\n", text) if part.strip())
    return Parts("paragraphs", "", paragraphs) if len(paragraphs) >= LEAST else None


def team_draft(one: Sequence[str], other: Sequence[str], draw: Callable[[], float]) -> list[tuple[str, int]]:
    """Items of both in drafted order, each with its team: as many as the longer list has. `draw` gives numbers in [0, 1)."""
    length = max(len(one), len(other))
    teams = (list(one), list(other))
    picked: list[tuple[str, int]] = []
    seen: set[str] = set()
    while len(picked) < length and (teams[0] or teams[1]):
        for team in (0, 1) if draw() < 0.5 else (1, 0):
            item = next((one for one in teams[team] if _key(one) not in seen), None)
            if item is None:
                teams[team].clear()
            elif len(picked) < length:
                seen.add(_key(item))
                teams[team].remove(item)
                picked.append((item, team))
    return picked


def drafted(one: str, other: str, draw: Callable[[], float]) -> Drafted | None:
    """Both answers as one; None if they are no two lists, or no two texts of several paragraphs."""
    first, second = parts_of(one), parts_of(other)
    if first is None or second is None or (first.kind == "paragraphs") != (second.kind == "paragraphs"):
        return None
    picked = team_draft(first.items, second.items, draw)
    teams = tuple(team for _, team in picked)
    if len(set(teams)) < 2:
        return None  # the same items: nothing could be preferred
    head = (first, second)[teams[0]].head
    if first.kind == "paragraphs":
        return Drafted("\n\n".join(item for item, _ in picked), teams)
    numbered = first.kind == "numbers"
    lines = [f"{number}. {item}" if numbered else f"- {item}" for number, (item, _) in enumerate(picked, 1)]
    return Drafted("\n".join(([head, ""] if head else []) + lines), teams)


def _key(item: str) -> str:
    """What makes two items the same: their words."""
    return " ".join(_WORDS.findall(item.lower()))
