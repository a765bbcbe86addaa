"""From a pattern to the pattern of its beginnings: what a stream's tail must look like for the pattern still to match there.

For a regular expression r, the beginnings B(r) are the texts that more text could turn into a match, or into another match. They follow
from r's shape (as derivatives do: Brzozowski, "Derivatives of regular expressions", JACM 11(4), 1964):
B(one character) is the empty text; B(ab) = B(a) | a B(b); B(a|b) = B(a) | B(b); B(a*) = a* B(a); B(a{n,m}) = a{0,m-1} B(a);
B(an assertion about what follows) is the empty text, and of one about what precedes, nothing. The syntax is RE2's.
"""

import re
from typing import NamedTuple

from penstock.core.errors import BadRequest

_REPEAT = re.compile(r"\{(\d+)(,?)(\d*)\}")
_FLAGS = re.compile(r"\(\?([imsU]*(?:-[imsU]+)?)([:)])")
_NAMED = re.compile(r"\(\?P?<\w+>")
_CODE = re.compile(r"\\(?:[pP](?:\{[^}]*\}|.)|x\{[0-9A-Fa-f]+\}|x[0-9A-Fa-f]{2}|[0-7]{1,3}|.)", re.DOTALL)
_CLASS = re.compile(r"\[\^?\]?(?:\[:[^\]]*:\]|\\(?:[pP]\{[^}]*\}|x\{[0-9A-Fa-f]+\}|.)|[^\]\\])*\]", re.DOTALL)


class Shape(NamedTuple):
    """A parsed pattern.

    `source` matches the same; `beginnings` is the pattern of B, None for none at all; `least` is the length of the shortest match.
    """

    source: str
    beginnings: str | None
    least: int


def parse(pattern: str) -> Shape:
    r"""The shape of `pattern`, which RE2 must already have accepted.

    Raises:
        BadRequest: if it uses a part of RE2's syntax that streams cannot be scanned for (`\C`, `\Q`).
    """
    parser = _Parser(pattern)
    shape = parser.alternatives()
    if parser.at < len(pattern):
        raise BadRequest(f"The pattern {pattern!r} has an unexpected {pattern[parser.at]!r}.")
    return shape


def ending(pattern: str, *, looks_ahead: bool) -> str:
    """A pattern for the longest tail of a text that could still become a match of `pattern`, to be searched in the whole text.

    Args:
        pattern: in RE2's syntax.
        looks_ahead: whether the character after a match matters, so that a match at the very end is not certain yet.
    """
    beginnings = parse(pattern).beginnings or ""
    if looks_ahead:
        beginnings = f"{beginnings}|(?:{parse(pattern).source})"
    return f"(?:{beginnings})\\z"


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def alternatives(self) -> Shape:
        """Up to the closing parenthesis or the end; flags set in one alternative hold in the later ones too."""
        flags = ""
        sources: list[str] = []
        beginnings: list[str] = []
        least: list[int] = []
        while True:
            shape, set_here = self._sequence()
            sources.append(shape.source)
            if shape.beginnings is not None:
                beginnings.append(flags + shape.beginnings)
            least.append(shape.least)
            flags += set_here
            if not self.pattern.startswith("|", self.at):
                break
            self.at += 1
        return Shape("|".join(sources), _either(beginnings), min(least))

    def _sequence(self) -> tuple[Shape, str]:
        items: list[Shape] = []
        flags = ""
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            if (found := _FLAGS.match(self.pattern, self.at)) and found[2] == ")":
                self.at = found.end()
                flags += found[0]
                items.append(Shape(found[0], None, 0))
            else:
                items.append(self._repeated(self._atom()))
        beginnings: str | None = None
        for item in reversed(items):
            ways = [] if item.beginnings is None else [item.beginnings]
            if beginnings is not None:
                ways.append(f"{item.source}{beginnings}")
            beginnings = _either(ways)
        return Shape("".join(i.source for i in items), beginnings, sum(i.least for i in items)), flags

    def _repeated(self, atom: Shape) -> Shape:
        while self.at < len(self.pattern):
            sign = self.pattern[self.at]
            low, high = 0, -1  # -1: without end
            if sign in "*+?":
                end = self.at + 1
                low, high = int(sign == "+"), 1 if sign == "?" else -1
            elif sign == "{" and (found := _REPEAT.match(self.pattern, self.at)):
                end = found.end()
                low = int(found[1])
                high = low if not found[2] else int(found[3]) if found[3] else -1
            else:
                break
            if self.pattern.startswith("?", end):
                end += 1
            source = f"(?:{atom.source}){self.pattern[self.at : end]}"
            self.at = end
            before = "" if high == 1 else f"(?:{atom.source})*" if high < 0 else f"(?:{atom.source}){{0,{high - 1}}}"
            none = atom.beginnings is None or high == 0
            atom = Shape(source, None if none else f"{before}{atom.beginnings}", atom.least * low)
        return atom

    def _atom(self) -> Shape:
        sign = self.pattern[self.at]
        if sign == "(":
            return self._group()
        if sign == "[":
            return self._taken(_CLASS)
        if sign == "\\":
            letter = self.pattern[self.at + 1]
            if letter in "CQE":
                raise BadRequest(f"The pattern {self.pattern!r} uses \\{letter}, which is not supported.")
            atom = self._taken(_CODE)
            if letter == "A":
                return Shape(atom.source, None, 0)
            return Shape(atom.source, "", 0) if letter in "bBz" else atom
        self.at += 1
        if sign == "^":
            return Shape(sign, None, 0)
        return Shape(sign, "", 0 if sign == "$" else 1)

    def _taken(self, token: re.Pattern[str]) -> Shape:
        found = token.match(self.pattern, self.at)
        if found is None:
            raise BadRequest(f"The pattern {self.pattern!r} cannot be read from {self.pattern[self.at :]!r} on.")
        self.at = found.end()
        return Shape(found[0], "", 1)

    def _group(self) -> Shape:
        head = "(?:"
        if found := _FLAGS.match(self.pattern, self.at):
            head = found[0]
            self.at = found.end()
        elif found := _NAMED.match(self.pattern, self.at):
            self.at = found.end()
        else:
            self.at += 1
        inside = self.alternatives()
        if not self.pattern.startswith(")", self.at):
            raise BadRequest(f"The pattern {self.pattern!r} lacks a closing parenthesis.")
        self.at += 1
        beginnings = None if inside.beginnings is None else f"{head}{inside.beginnings})"
        return Shape(f"{head}{inside.source})", beginnings, inside.least)


def _either(ways: list[str]) -> str | None:
    if not ways:
        return None
    if len(ways) == 1 and not ways[0]:
        return ""
    return f"(?:{'|'.join(ways)})"
