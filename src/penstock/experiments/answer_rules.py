"""Rules that an answer holds or breaks: what it must contain, how long it is, whether it is JSON of a shape, whether it declines."""

import re
from typing import Any

import msgspec

from penstock.core.errors import BadRequest
from penstock.core.patterns import compile_pattern
from penstock.experiments.json_shape import check_schema, fits
from penstock.experiments.references import numbers_in, plain
from penstock.experiments.scoring import Score

_MEMORY = 1 << 20
_FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)
REFUSALS = (
    r"(?i)\bI(?:'m| am) (?:sorry|unable|not able)\b.{0,60}\b(?:can(?:no|')t|unable|not able)\b",
    r"(?i)\bI (?:can(?:no|')t|won't|will not|am unable to|'m unable to|am not able to) (?:help|assist|answer|provide|do that|discuss)\b",
    r"(?i)\bas an AI\b.{0,60}\b(?:can(?:no|')t|unable|not able)\b",
)


class AnswerRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """All that is given must hold. Words are compared as whole words, without case."""

    contains: tuple[str, ...] = ()  # all of them
    contains_any: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    pattern: str | None = None  # RE2, found somewhere
    lacks_pattern: str | None = None
    json_schema: dict[str, Any] | None = None  # the answer is JSON of this shape, in a fence of three backticks or bare
    min_number: float | None = None  # of the first number in it, which must be there
    max_number: float | None = None
    min_characters: int | None = None
    max_characters: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    refuses: bool | None = None  # whether it declines, by `refusals`
    refusals: tuple[str, ...] = REFUSALS


def check_rules(rules: AnswerRules) -> None:
    """Refuse rules that say nothing or that cannot be read.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    if rules == AnswerRules(refusals=rules.refusals):
        raise BadRequest("rules: say what an answer must be like.", param="rules")
    named = [("pattern", rules.pattern), ("lacks_pattern", rules.lacks_pattern)]
    named += [(f"refusals.{at}", one) for at, one in enumerate(rules.refusals)]
    for name, pattern in named:
        if pattern is not None:
            try:
                compile_pattern(pattern, _MEMORY)
            except BadRequest as error:
                raise BadRequest(f"rules.{name}: {error.message}", param=f"rules.{name}", code=error.code) from None
    if rules.json_schema is not None:
        check_schema(rules.json_schema, "rules.json_schema")
    for name in ("contains", "contains_any", "lacks"):
        for at, words in enumerate(getattr(rules, name)):
            if not plain(words):
                raise BadRequest(f"rules.{name}.{at}: it has no words.", param=f"rules.{name}.{at}")


def score_by_rules(rules: AnswerRules, answer: str) -> Score:
    """1 if the answer holds all of the rules, 0 if it breaks one."""
    return Score("scored", float(_holds(rules, answer)))


def is_refusal(answer: str, patterns: tuple[str, ...] = REFUSALS) -> bool:
    """Whether the answer declines, by these patterns."""
    return any(_found(pattern, answer) for pattern in patterns)


def _holds(rules: AnswerRules, answer: str) -> bool:
    said = f" {plain(answer)} "

    def has(words: str) -> bool:
        return f" {plain(words)} " in said

    if not all(map(has, rules.contains)) or any(map(has, rules.lacks)):
        return False
    if rules.contains_any and not any(map(has, rules.contains_any)):
        return False
    if rules.pattern is not None and not _found(rules.pattern, answer):
        return False
    if rules.lacks_pattern is not None and _found(rules.lacks_pattern, answer):
        return False
    if rules.refuses is not None and is_refusal(answer, rules.refusals) is not rules.refuses:
        return False
    if rules.json_schema is not None and not _is_json(rules.json_schema, answer):
        return False
    return _in_bounds(rules, answer)


def _in_bounds(rules: AnswerRules, answer: str) -> bool:
    if rules.min_number is not None or rules.max_number is not None:
        numbers = numbers_in(answer)
        if not numbers or not _between(numbers[0], rules.min_number, rules.max_number):
            return False
    return _between(len(answer), rules.min_characters, rules.max_characters) and _between(
        len(answer.split()), rules.min_words, rules.max_words
    )


def _between(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _found(pattern: str, text: str) -> bool:
    return compile_pattern(pattern, _MEMORY).search(text.encode("utf-8", "surrogatepass")) is not None


def _is_json(schema: dict[str, Any], answer: str) -> bool:
    fenced = _FENCED.match(answer)
    try:
        value = msgspec.json.decode((fenced.group(1) if fenced else answer).encode("utf-8", "surrogatepass"))
        return fits(schema, value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
