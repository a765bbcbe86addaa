"""The little grammar of the phrasing files: `(a|b|)` alternation, which nests, and `{slot}`, which stays as it is."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

SLOT = re.compile(r"\{([a-z]+)\}")
_SPACES = re.compile(r"\s+")
_SPACE_BEFORE_STOP = re.compile(r"\s+([,.!?;:])(?=\s|$)")


class GrammarError(ValueError):
    """A phrasing whose parentheses do not match."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One alternative of several; each is a sequence of text and further choices."""

    options: tuple[tuple[str | Choice, ...], ...]


def parse(line: str) -> Choice:
    """Reads one phrasing. Raises GrammarError that names the line where a parenthesis has no partner."""
    stack: list[list[list[str | Choice]]] = [[[]]]
    for part in re.split(r"([()|])", line):
        if part == "(":
            stack.append([[]])
        elif part == ")":
            if len(stack) == 1:
                raise GrammarError(f"')' without '(' in the phrasing {line!r}")
            closed = Choice(options=tuple(tuple(option) for option in stack.pop()))
            stack[-1][-1].append(closed)
        elif part == "|" and len(stack) > 1:
            stack[-1].append([])
        elif part:
            stack[-1][-1].append(part)
    if len(stack) > 1:
        raise GrammarError(f"'(' without ')' in the phrasing {line!r}")
    return Choice(options=(tuple(stack[0][0]),))


def expand(choice: Choice, rng: random.Random) -> str:
    """One text of those that the phrasing stands for, spaces tidied; slots are left in."""
    return tidy(_expand(choice, rng))


def _expand(choice: Choice, rng: random.Random) -> str:
    option = choice.options[rng.randrange(len(choice.options))] if len(choice.options) > 1 else choice.options[0]
    return "".join(part if isinstance(part, str) else _expand(part, rng) for part in option)


def count(choice: Choice) -> int:
    """How many texts the phrasing stands for (equal texts counted as often as they come up)."""
    total = 0
    for option in choice.options:
        product = 1
        for part in option:
            product *= 1 if isinstance(part, str) else count(part)
        total += product
    return total


def slots(line: str) -> set[str]:
    """The names of the slots in a phrasing."""
    return set(SLOT.findall(line))


def tidy(text: str) -> str:
    """Single spaces, none before a full stop or comma, none at the ends."""
    return _SPACE_BEFORE_STOP.sub(r"\1", _SPACES.sub(" ", text)).strip()
