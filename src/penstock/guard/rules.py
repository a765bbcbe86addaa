"""A policy's rules, compiled: scan a whole text, or a stream piece by piece, with the same result."""

import hashlib
from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec
import re2

from penstock.core.errors import BadRequest
from penstock.core.exchange import Finding
from penstock.core.patterns import First, bounded_options, compile_pattern, first_match
from penstock.core.snapshot import Policy, Rule
from penstock.guard.detectors import Detector, detectors, label
from penstock.guard.prefixes import ending, parse

Where = Literal["input", "output"]
_LONGEST_WORD = 200
_MAX_MEMORY = 64 * 1024 * 1024


class Screened(NamedTuple):
    """A text after the rules.

    `text` is what may go on (up to the blocked place, if one is); `findings` are counted by rule; `blocked` names the rule that forbids
    the whole, None if none does.
    """

    text: str
    findings: tuple[Finding, ...] = ()
    blocked: str | None = None


class Span(NamedTuple):
    """One match: bytes `start` to `end` of the text, and which matcher of the scanner found it."""

    start: int
    matcher: int
    end: int


class Matcher:
    """One pattern of one rule, ready to search."""

    __slots__ = ("_ending", "_pattern", "_validate", "action", "mask", "rule")

    def __init__(self, rule: Rule, detector: Detector, *, streams: bool) -> None:
        self.rule = rule.name
        self.action = rule.do
        self.mask = label(rule).encode()
        self._validate = detector.validate
        self._pattern = _compiled(detector.pattern)
        self._ending = _compiled(_ending(detector)) if streams else None

    def pending(self, text: bytes, start: int) -> int:
        """Where the earliest match begins that text after the end could still bring about; the end if none could.

        Raises:
            RuntimeError: if the matcher was not made for streams.
        """
        if self._ending is None:
            raise RuntimeError(f"the rule {self.rule!r} was not compiled for streams")
        found = self._ending.search(text, start)
        return len(text) if found is None else int(found.start())

    def find(self, text: bytes, start: int, final: bool) -> tuple[list[tuple[int, int]], int]:
        """All certain matches from `start` on, and where uncertainty begins.

        Args:
            text: UTF-8.
            start: where to begin; what is before it serves as context.
            final: whether nothing follows `text`, so that all is certain.
        """
        spans: list[tuple[int, int]] = []
        at = start
        while True:
            found = self._pattern.search(text, at)
            if not final:
                pending = self.pending(text, at)
                if found is None or pending <= found.start():
                    return spans, pending
            elif found is None:
                return spans, len(text)
            begin, end = found.span()
            if self._validate is not None:
                end = self._validate(text, begin, end)
            if end < 0:
                at = begin + 1
            else:
                spans.append((begin, end))
                at = end


class Scanner:
    """All rules of a policy for one direction."""

    __slots__ = ("_find", "_least", "_matchers", "_set", "where")

    def __init__(self, rules: Iterable[Rule], where: Where) -> None:
        self.where = where
        self._matchers: list[Matcher] = []
        patterns: list[str] = []
        endings: list[str] = []
        for rule in rules:
            for detector in _checked(rule):
                self._matchers.append(Matcher(rule, detector, streams=where == "output"))
                patterns.append(detector.pattern)
                if where == "output":
                    endings.append(_ending(detector))
        self._set = _compiled_set(patterns)
        self._least = min((parse(pattern).least for pattern in patterns), default=0)
        self._find: First | None = None  # of input nothing is scanned in pieces
        if where == "output":
            either = "|".join(f"(?:{one})" for one in (*endings, *patterns))
            self._find = first_match(_compiled(either))

    def clean(self, text: bytes) -> bool:
        """Whether no rule's pattern occurs in `text`, not even as a candidate: the quick answer for almost all texts."""
        return not self._set.Match(text)

    def quiet(self, text: bytes, start: int) -> int:
        """Up to where `text` may be released, if it is certain that nothing is found before; -1 if it has to be looked at more closely.

        One search, for beginnings and for whole matches, answers for almost all pieces of a stream. What it finds at the end of the text is a
        beginning, from which on text is held, or a match; that one is at least as long as the shortest possible.

        Raises:
            RuntimeError: if the rules are not for output.
        """
        if self._find is None:
            raise RuntimeError("rules of input were not compiled for streams")
        begin, end = self._find(text, start)
        if begin < 0:
            return len(text)
        if end < len(text) or (end - begin >= self._least and self._set.Match(text)):
            return -1
        return begin

    def resolve(self, text: bytes, start: int, final: bool) -> tuple[list[Span], int]:
        """The matches that are certain and may be acted on, in order, and the place up to which the text may be released.

        No match reaches across that place, so that each is acted on once and whole.
        """
        hits: list[int] = self._set.Match(text) or []
        safe = len(text)
        spans: list[Span] = []
        for index, matcher in enumerate(self._matchers):
            if index in hits:
                found, uncertain = matcher.find(text, start, final)
                spans.extend(Span(begin, index, end) for begin, end in found)
                safe = min(safe, uncertain)
            elif not final:
                safe = min(safe, matcher.pending(text, start))
        spans.sort()
        for span in reversed(spans):  # by start, descending: one pass is enough but for longer ones that begin earlier
            if span.start < safe < span.end:
                safe = span.start
        while any(s.start < safe < s.end for s in spans):
            safe = min(s.start for s in spans if s.start < safe < s.end)
        return [s for s in spans if s.start < safe], safe

    def render(
        self, text: bytes, start: int, safe: int, spans: list[Span]
    ) -> tuple[bytes, tuple[Finding, ...], str | None]:
        """What may be shown of `text` from `start` to `safe`, what was found, and the rule that blocks, if one does."""
        pieces: list[bytes] = []
        counts: dict[tuple[str, str], int] = {}
        reach: dict[str, int] = {}
        shown = start
        blocked = None
        for span in spans:
            matcher = self._matchers[span.matcher]
            if span.start >= reach.get(matcher.rule, -1):  # patterns of one rule that overlap are one finding
                key = (matcher.rule, matcher.action)
                counts[key] = counts.get(key, 0) + 1
            reach[matcher.rule] = max(reach.get(matcher.rule, -1), span.end)
            if matcher.action == "block":
                blocked = matcher.rule
                safe = max(shown, span.start)
                break
            if matcher.action == "mask":
                if span.start >= shown:
                    pieces += (text[shown : span.start], matcher.mask)
                shown = max(shown, span.end)
        pieces.append(text[shown:safe])
        findings = tuple(Finding(rule, action, self.where, count) for (rule, action), count in counts.items())
        return b"".join(pieces), findings, blocked

    def scan(self, text: str) -> Screened:
        """The whole of `text` after the rules."""
        data = text.encode("utf-8", "surrogatepass")
        if not self._set.Match(data):
            return Screened(text)
        spans, safe = self.resolve(data, 0, final=True)
        if not spans:
            return Screened(text)
        shown, findings, blocked = self.render(data, 0, safe, spans)
        return Screened(shown.decode("utf-8", "surrogatepass"), findings, blocked)


def _checked(rule: Rule) -> tuple[Detector, ...]:
    found = detectors(rule)
    if not found:
        what = "words" if rule.detect == "words" else "patterns"
        raise BadRequest(f"The rule {rule.name!r} has no {what} to look for.", param=f"rules.{rule.name}.{what}")
    if too_long := [w for w in rule.words if len(w) > _LONGEST_WORD]:
        raise BadRequest(
            f"The rule {rule.name!r} has a word of {len(too_long[0])} characters; the longest allowed is {_LONGEST_WORD}.",
            param=f"rules.{rule.name}.words",
        )
    if rule.detect == "pattern":
        for detector in found:
            try:
                _compiled(detector.pattern)
                shape = parse(detector.pattern)
            except BadRequest as error:
                raise BadRequest(
                    f"The rule {rule.name!r} has a bad pattern: {error.message}", param=f"rules.{rule.name}.patterns"
                ) from None
            if shape.least == 0:
                raise BadRequest(
                    f"The rule {rule.name!r} has a pattern that matches the empty text: {detector.pattern!r}.",
                    param=f"rules.{rule.name}.patterns",
                )
    return found


def _ending(detector: Detector) -> str:
    if detector.ending is not None:
        return detector.ending
    return ending(detector.pattern, looks_ahead=detector.looks_ahead)


def _compiled(pattern: str) -> re2._Regexp:
    return compile_pattern(pattern, _MAX_MEMORY)


def _compiled_set(patterns: list[str]) -> re2.Set:
    options = bounded_options(_MAX_MEMORY)
    # A set too large for its memory matches nothing, without a word: one that must match anything shows it.
    for extra in ((r"\A",), ()):
        built = re2.Set.SearchSet(options)
        for pattern in (*patterns, *extra):
            built.Add(pattern.encode())
        built.Compile()
        if extra and len(patterns) not in built.Match(b"probe"):
            raise BadRequest(
                "The policy's rules are too large to be searched for together: use fewer words or patterns."
            )
    return built


def rules_digest(policy: Policy) -> str:
    """32 hexadecimal digits that change whenever the rules do: a part of response-cache keys."""
    return hashlib.sha256(msgspec.json.encode(policy.rules)).hexdigest()[:32]
