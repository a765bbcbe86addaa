"""Factual accuracy against references: questions whose right answers are known."""

import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

import msgspec

from penstock.core.errors import BadRequest
from penstock.core.patterns import compile_pattern
from penstock.experiments.scoring import Score

MEMORY = 1 << 20  # of one pattern
_WORDS = re.compile(r"\w+")
_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")

Match = Literal["contains", "all", "exact", "number", "pattern"]


class Reference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question and what a right answer to it says.

    `contains`: one of `answers`; `all`: every one of them; `exact`: one of them and nothing else; `number`: a number that is one of theirs, within `tolerance` of
    its size; `pattern`: what one of them, in RE2, finds. Case, white space and punctuation do not count, but for patterns.
    """

    question: str
    answers: tuple[str, ...]
    match: Match = "contains"
    tolerance: float = 0.0


def plain(text: str) -> str:
    """The words of `text` in lower case, one space between two."""
    return " ".join(_WORDS.findall(unicodedata.normalize("NFKC", text).casefold()))


def numbers_in(text: str) -> list[float]:
    """The numbers that `text` states in digits. Groups of three behind commas are thousands; another comma is a decimal one."""
    found = []
    for match in _NUMBER.finditer(text):
        word = match.group()
        if _THOUSANDS.fullmatch(word):
            word = word.replace(",", "")
        try:
            found.append(float(word.replace(",", ".")))
        except ValueError:  # 1.2.3 is a date or a version
            continue
    return found


def check_references(references: Iterable[Reference], path: str) -> None:
    """Refuse references that could never be met, and two for one question.

    Raises:
        BadRequest: `param` is the path of what is wrong.
    """
    seen: set[str] = set()
    for at, one in enumerate(references):
        here = f"{path}.{at}"
        key = plain(one.question)
        if not key:
            raise _wrong(f"{here}.question", "it has no words.")
        if key in seen:
            raise _wrong(f"{here}.question", f"there is a reference for {one.question[:80]!r} already.")
        seen.add(key)
        if not one.answers:
            raise _wrong(f"{here}.answers", "there is none.")
        if not 0 <= one.tolerance < math.inf:
            raise _wrong(f"{here}.tolerance", "it must not be negative.")
        for i, answer in enumerate(one.answers):
            _check_answer(one.match, answer, f"{here}.answers.{i}")


def _check_answer(match: Match, answer: str, path: str) -> None:
    if match == "pattern":
        try:
            compile_pattern(answer, MEMORY)
        except BadRequest as error:
            raise _wrong(path, error.message) from None
    elif match == "number":
        if len(numbers_in(answer)) != 1:
            raise _wrong(path, "it must state one number.")
    elif not plain(answer):
        raise _wrong(path, "it has no words.")


def _wrong(path: str, sentence: str) -> BadRequest:
    return BadRequest(f"{path}: {sentence}", param=path)


def is_right(reference: Reference, answer: str) -> bool:
    """Whether `answer` says what the reference says."""
    if reference.match == "pattern":
        data = answer.encode("utf-8", "surrogatepass")
        return any(compile_pattern(one, MEMORY).search(data) is not None for one in reference.answers)
    if reference.match == "number":
        said = numbers_in(answer)
        wanted = [number for one in reference.answers for number in numbers_in(one)]
        return any(abs(a - b) <= reference.tolerance * abs(b) + 1e-9 for a in said for b in wanted)
    said_words, wanted_words = plain(answer), [plain(one) for one in reference.answers]
    if reference.match == "exact":
        return said_words in wanted_words
    held = [f" {one} " in f" {said_words} " for one in wanted_words]
    return all(held) if reference.match == "all" else any(held)


class ReferenceSet:
    """References, found by their question."""

    def __init__(self, references: Iterable[Reference]) -> None:
        self._by_question = {plain(one.question): one for one in references}

    def score(self, question: str, answer: str) -> Score:
        """1 if the answer is right, 0 if it is not."""
        reference = self._by_question.get(plain(question))
        if reference is None:
            return Score("no_reference")
        return Score("scored", float(is_right(reference, answer)))
