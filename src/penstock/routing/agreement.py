"""Whether two questions that an embedding finds alike differ in what embeddings are blind to: numbers, names, negations, opposites.

Embeddings put "cancel order 4711" beside "cancel order 4712", and "can I" beside "can't I" (Ettinger 2020, "What BERT is not"). So a
cached answer is given to another question only if both state the same facts. The check is one-sided: what it does not understand it
calls a difference, and the question goes to the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from penstock.routing.lexicon import (
    CHAT_LETTERS,
    COUNTING,
    FILLERS,
    GENERIC,
    LOOSE_OPPOSITES,
    LOOSE_QUESTIONS,
    MEASURES,
    NAMES_TOO,
    NEGATIONS,
    OPPOSITES,
    PARTICLES,
    PREFIXES,
    QUESTION_WORDS,
    RELATING,
    SYNONYMS,
    UNITS,
)

_TOKEN = re.compile(
    r"[\"\u201c\u201e\u00ab`](?P<quoted>[^\"\u201c\u201d\u201e\u00ab\u00bb`]{1,200})[\"\u201d\u201c\u00bb`]"
    r"|(?P<address>[^\s@]{1,64}@[^\s@]{1,255}|(?:https?://|www\.)\S+)"
    r"|(?P<number>(?:[^\W\d_]+[-_/]?)?\d(?:[\w.,:/\-]*\w)?)"
    r"|(?P<sign>[\u20ac$\u00a3\u00a5%<>=+*^\u00b0])"
    r"|(?P<word>[^\W\d_]+(?:['\u2019\u02bc][^\W\d_]+)*)"
    r"|(?P<stop>[.!?:;\n]+)"
)
_SIGNS = {
    "\u20ac": "euro",
    "$": "dollar",
    "\u00a3": "pound",
    "\u00a5": "yen",
    "%": "percent",
    "eur": "euro",
    "usd": "dollar",
    "gbp": "pound",
}
_ABBREVIATED = re.compile(r"\bno\.?\s*:?\s*(?=#?[A-Za-z]{0,3}-?\d)", re.IGNORECASE)  # "order no. 4711" denies nothing
_NOT_APART = re.compile(r"\b(w/o)\b", re.IGNORECASE)
_MOST_CAPITALS = 0.6  # a text with more is in capitals or title case, and they tell nothing
_PHRASAL = frozenset({"log", "sign", "turn", "switch", "opt", "check"})
_REACH = 2  # content words that a negation denies

_OPPOSED: dict[str, frozenset[str]] = {}
for _one, _other in OPPOSITES:
    _OPPOSED[_one] = _OPPOSED.get(_one, frozenset()) | {_other}
    _OPPOSED[_other] = _OPPOSED.get(_other, frozenset()) | {_one}

_LOOSE = LOOSE_OPPOSITES
SAME_WORDS: dict[str, str] = {word: group[0] for group in reversed(SYNONYMS) for word in group[1:]}


class Marks(msgspec.Struct, frozen=True, array_like=True):
    """What of a question must be the same in another one that is to get its answer.

    Attributes:
        facts: numbers, dates, units, names and whatever is quoted, in their order.
        content: the other words that carry the question, in their order, folded to one form.
        negations: how many words deny.
        denied: the content words that they deny.
        asked: what kinds of thing are asked for: who, when, where, how many ...
        turning: words that have an opposite, as they stand.
        ordered: a word says which of two things is which, so that the order of `content` counts.
    """

    facts: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    negations: int = 0
    denied: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    turning: frozenset[str] = frozenset()
    ordered: bool = False


def same_words(groups: Iterable[Iterable[str]]) -> dict[str, str]:
    """The table of words that count as one, the built-in groups and `groups`; the first of a group stands for all."""
    table = dict(SAME_WORDS)
    for group in groups:
        first, *others = (word.lower() for word in group)
        first = table.get(first, first)
        table.update((base(word) or word, first) for word in others)
        table.update((word, first) for word in others)
    return table


def base(word: str) -> str | None:
    """The base form of a word that names nothing, out of the lists; None for a word that is in none of them."""
    for form in _forms(word):
        if form in GENERIC:
            return form
    return None


def marks(text: str, same: Mapping[str, str] = SAME_WORDS) -> Marks:
    """Reads a question. `same` folds words that count as one (`same_words`)."""
    reader = _Reader(same)
    reader.read(_NOT_APART.sub("without", _ABBREVIATED.sub("", text)))
    return reader.marks()


def agree(a: Marks, b: Marks) -> bool:
    """Whether an answer to `a` may be given to `b`, provided that they mean much the same. Symmetric, and true of a question and itself."""
    if a.facts != b.facts or a.negations != b.negations:
        return False
    if a.asked and b.asked and a.asked != b.asked:
        return False
    if _turned(a.turning, b.turning, _LOOSE) or _turned(b.turning, a.turning, _LOOSE):
        return False
    return not _denies(a, b) and not _denies(b, a) and _frames_agree(a, b)


def _turned(one: frozenset[str], other: frozenset[str], but: frozenset[str] = frozenset()) -> bool:
    return any(_OPPOSED[word] & other for word in one - other - but)


def _denies(one: Marks, other: Marks) -> bool:
    """Whether `one` denies what `other` says plainly."""
    return any(word in other.content and word not in other.denied for word in one.denied)


def _frames_agree(a: Marks, b: Marks) -> bool:
    """Whether what differs of the words is not what is asked about.

    Where two questions share a frame, the word that stands in another's place is the question: "the refund is due", "the parcel is due".
    """
    first, second = set(a.content), set(b.content)
    if not first or not second:
        return first == second and a.asked == b.asked  # "when?" and "4711" ask what only the talk before them tells
    mine, yours = first - second, second - first
    if any(_negated_form(word, yours) for word in mine) or any(_negated_form(word, mine) for word in yours):
        return False
    if mine and yours:
        return max(len(mine), len(yours)) > max(1, len(first & second))
    if _turned(a.turning, b.turning) or _turned(b.turning, a.turning):
        return False
    if mine or yours:
        return True
    return a.asked - _COSTS == b.asked - _COSTS and (a.content == b.content or not (a.ordered or b.ordered))


def _negated_form(word: str, others: set[str]) -> bool:
    return any(prefix + word in others for prefix in PREFIXES) or word + "less" in others


class _Reader:
    """One pass over a text."""

    def __init__(self, same: Mapping[str, str]) -> None:
        self._same = same
        self._facts: list[str] = []
        self._content: list[str] = []
        self._asked: set[str] = set()
        self._turning: set[str] = set()
        self._denied: set[str] = set()
        self._negations = 0
        self._units: list[int] = []  # where facts are units, which count beside a number only
        self._numbers = False
        self._ordered = False
        self._from = False
        self._reach = 0
        self._before = ""
        self._capitals = False

    def read(self, text: str) -> None:
        """Sorts every token into its kind."""
        found = list(_TOKEN.finditer(text))
        spelled = [match["word"] for match in found if match["word"]]
        capital = sum(word[0].isupper() for word in spelled)
        self._capitals = capital <= _MOST_CAPITALS * len(spelled)
        begins = True
        for match in found:
            kind = match.lastgroup
            token = match[kind] if kind else ""
            if kind == "word":
                self._word(token, begins)
                begins = False
            elif kind == "stop":
                begins = True
                self._reach = 0
            else:
                begins = False
                self._state(_fact(token, kind), number=kind in {"number", "sign"})

    def marks(self) -> Marks:
        """What was read."""
        return Marks(
            facts=tuple(self._stated()),
            content=tuple(self._content),
            negations=self._negations,
            denied=frozenset(self._denied),
            asked=frozenset(self._asked),
            turning=frozenset(self._turning),
            ordered=self._ordered,
        )

    def _stated(self) -> list[str]:
        if not self._numbers and self._units:
            units = {self._facts[at] for at in self._units}
            self._content += [self._facts[at] for at in self._units]
            self._facts = [fact for fact in self._facts if fact not in units]
        if len(self._facts) > 1:
            return self._facts
        return [fact.removeprefix(_FROM) for fact in self._facts]

    def _word(self, token: str, begins: bool) -> None:
        word = token.casefold().replace("\u2019", "'").replace("\u02bc", "'")
        if word.endswith("n't") or (word.replace("'", "") in NEGATIONS):
            self._deny(word)
            return
        word = word.partition("'")[0] if word.rpartition("'")[2] in _CLITICS else word
        before, self._before = self._before, word
        self._ask(word, before)
        forms = _forms(word)
        for form in forms:
            if form in _OPPOSED:
                self._turning.add(form)
        if before in _PHRASAL and f"{before}_{word}" in _OPPOSED:
            self._turning.add(f"{before}_{word}")
        single = word.removesuffix("s")
        if word in RELATING:
            self._ordered = True
        if word == "from":
            self._from = True
        elif word in COUNTING or single in COUNTING:
            self._state(word if word in COUNTING else single, number=True)
        elif (word in UNITS or single in UNITS) and not self._named(token, begins=begins):
            self._units.append(len(self._facts))
            unit = word if word in UNITS else single
            self._facts.append(_SIGNS.get(unit, unit))
        elif word in QUESTION_WORDS or word in LOOSE_QUESTIONS:
            return
        elif word in PARTICLES or word in CHAT_LETTERS or not FILLERS.isdisjoint(forms):
            if word in NAMES_TOO and self._named(token, begins=begins):
                self._state(word)
        else:
            self._carry(word, named=self._named(token, begins=begins))

    def _named(self, spelled: str, *, begins: bool) -> bool:
        return self._capitals and not begins and spelled[0].isupper() and spelled != "I"

    def _state(self, fact: str, *, number: bool = False) -> None:
        self._facts.append(_FROM + fact if self._from else fact)
        self._from = False
        self._numbers = self._numbers or number

    def _carry(self, word: str, *, named: bool) -> None:
        known = base(word)
        folded = self._same.get(word) or self._same.get(known or word, known or word)
        if named or (known is None and base(folded) is None):
            self._state(folded)
            return
        self._content.append(folded)
        if self._reach:
            self._reach -= 1
            self._denied.add(folded)

    def _deny(self, word: str) -> None:
        self._negations += 1
        self._ordered = self._ordered or word in RELATING
        self._reach = _REACH
        self._before = word
        if word in _OPPOSED:
            self._turning.add(word)

    def _ask(self, word: str, before: str) -> None:
        if word in QUESTION_WORDS:
            self._asked.add(QUESTION_WORDS[word])
        elif before == "how" and word in MEASURES:
            self._asked.add(f"how {word}")
            if word == "much":
                self._content.append("cost")


_COSTS = frozenset({"how much"})  # says the same as the word that it puts into `content`
_FROM = "from "
_CLITICS = frozenset({"s", "m", "re", "ve", "ll", "d"})


def _fact(token: str, kind: str | None) -> str:
    if kind == "quoted":
        return " ".join(token.casefold().split())
    if kind == "number":
        return (
            token.casefold().replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", token) else token.casefold()
        )
    return _SIGNS.get(token, token.casefold())


_ENDINGS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "s": (("ies", ("y",)), ("es", ("", "e")), ("s", ("",))),
    "d": (("ied", ("y",)), ("ed", ("", "e"))),
    "g": (("ing", ("", "e")),),
    "y": (("ly", ("",)),),
    "r": (("er", ("", "e")),),
}  # by their last letter, because most words have none of them


def _forms(word: str) -> list[str]:
    """The word, and what it may be without its ending."""
    forms = [word]
    for ending, others in _ENDINGS.get(word[-1:], ()):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            stem = word[: -len(ending)]
            forms += [stem + other for other in others]
            if ending in {"ed", "ing"} and stem[-1] == stem[-2]:
                forms.append(stem[:-1])
    return forms
