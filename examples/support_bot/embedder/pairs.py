"""What the embedder learns from: texts that ask the same, and texts that only look as if they did.

Two texts ask the same when they have one intent and one set of values: they come from one line (other words, greetings, typos)
or from two lines of the intent. Texts that look alike and ask something else differ in the value, in the intent, in a negation,
or in whose business it is. Off-topic lines ask the same as themselves only.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

from examples.support_bot import grammar
from examples.support_bot.excluded import Excluded
from examples.support_bot.foreign import Foreign
from examples.support_bot.noise import MARKS, Noise
from examples.support_bot.phrasings import ORDER_REPLY, Phrasing, load
from examples.support_bot.shop import OFF_TOPIC, load_shop
from examples.support_bot.values import Pools

TRAINED_VOICES = ("plain", "hurried", "story")
HELD_OUT_VOICE = "international"  # a writer whom the embedder has never read: what the figures are about

_NEGATION = re.compile(
    r"\b(?:not|no|never|nobody|nothing|none|neither|nor|without|cannot)\b|n['\u2019]?t\b", re.IGNORECASE
)
_FLIPS = (
    (r"\b(is|are|was|were|does|did|has|have|could|should|would)n['\u2019]?t\b", r"\1"),
    (r"\b(?:cannot|can['\u2019]?t)\b", "can"),
    (r"\bdon['\u2019]?t (?=\w)", "do "),
    (r"\b(is|are|was|were|can|could|does|did|do|has|have|should|would|will|must) not\b", r"\1"),
    (r"\bnever\b", "always"),
    (r"\bwithout\b", "with"),
    (r"\bwith\b", "without"),
    (r"\b(is|are|was|were|does|did|has|could|should|would)\b", r"\1n't"),
    (r"\bcan\b", "can't"),
    (r"\b(will|must|may)\b", r"\1 not"),
    (r"\b[Ii] (want|need|like|know|have|think)\b", r"I don't \1"),
    (r"\b(do|have)\b", r"\1n't"),
)


@dataclass(frozen=True, kw_only=True)
class Text:
    """One way to ask.

    Attributes:
        key: equal for texts that ask the same.
        line: the phrasing that it was made of.
    """

    text: str
    key: str
    line: str
    slots: dict[str, str] = field(default_factory=dict)


def negations(text: str) -> int:
    """How many words of the text negate."""
    return len(_NEGATION.findall(text))


def negated(text: str, rng: random.Random) -> str | None:
    """The text with one negation more or less; None where no rule fits."""
    for pattern, other in rng.sample(_FLIPS, len(_FLIPS)):
        changed, times = re.subn(pattern, other, text, count=1)
        if times and negations(changed) != negations(text):
            return changed
    return None


class Writer:
    """Draws texts from some voices, from one side of the split of lines.

    It reads nothing of the evaluation set, not even to leave it out: no figure of the embedder is about that set.
    """

    def __init__(self, *, voices: tuple[str, ...], held_out: bool | None) -> None:
        self.shop = load_shop()
        self.pools, self.noise, self.foreign = Pools.read(Excluded()), Noise.read(), Foreign.read()
        self.lines: dict[tuple[str, bool], list[Phrasing]] = {}
        for line in load(self.shop, voices=voices):
            if held_out is None or line.held_out == held_out:
                self.lines.setdefault((line.intent, self._with_value(line)), []).append(line)
        self.lines.pop((ORDER_REPLY, True), None)
        self._kinds = [kind for kind in self.lines if kind[0] != OFF_TOPIC]

    def line(self, rng: random.Random) -> Phrasing:
        """A line: one in seven off topic, else evenly over intents, with their value or without."""
        off_topic = self.lines.get((OFF_TOPIC, False))
        if off_topic and rng.random() < 1 / 7:
            return rng.choice(off_topic)
        return rng.choice(self.lines[rng.choice(self._kinds)])

    def like(self, line: Phrasing, rng: random.Random, *, same_line: float) -> Phrasing:
        """A line that asks the same: itself with the chance `same_line`, and always if it is off topic."""
        if line.intent == OFF_TOPIC or rng.random() < same_line:
            return line
        return rng.choice(self.lines[(line.intent, self._with_value(line))])

    def slots(self, line: Phrasing, rng: random.Random) -> dict[str, str]:
        """Fresh values for the line's slots."""
        make = {"order": self.pools.order, "product": self.pools.product, "name": self.pools.name}
        return {slot: make[slot](rng) for slot in sorted(line.slots)}

    def text(self, line: Phrasing, slots: dict[str, str], rng: random.Random, *, noise: bool = True) -> Text:
        """The line as somebody would type it."""
        plain = grammar.expand(line.choice, rng)
        return Text(
            text=self._typed(plain, slots, rng, noise=noise), key=self._key(line, slots), line=line.text, slots=slots
        )

    def reworded(self, text: Text, rng: random.Random) -> str:
        """The text with other words of the same meaning, greetings, pleas, capitals and stops; no typing mistakes."""
        plain = text.text
        for slot, value in text.slots.items():
            plain = plain.replace(value, MARKS[slot]).replace(value.lower(), MARKS[slot])
        changed = self.noise.pattern.sub(lambda match: self._synonym(match, rng), plain)
        changed = self.noise.around(changed, rng).replace("{name}", self.pools.name(rng))
        changed = changed.lower() if rng.random() < 0.4 else changed
        changed = changed.rstrip(".?!") if rng.random() < 0.4 else changed
        for slot, value in text.slots.items():
            changed = changed.replace(MARKS[slot], value)
        return changed

    def _synonym(self, match: re.Match[str], rng: random.Random) -> str:
        return rng.choice(self.noise.synonyms[match.group().lower()]) if rng.random() < 0.4 else match.group()

    def lookalike(self, line: Phrasing, slots: dict[str, str], rng: random.Random) -> str:
        """A text that is close to the line's in its words and asks something else."""
        plain = grammar.expand(line.choice, rng)
        kinds = ["value", "value", "intent"] if slots else []
        for kind in (*rng.sample(kinds, len(kinds)), rng.choice(("foreign", "negation")), "foreign", "negation"):
            if kind == "value":
                return self._typed(plain, self._other_values(slots, rng), rng)
            if kind == "intent":
                other = rng.choice([k for k in self._kinds if k[0] != line.intent and k[1]])
                found = rng.choice(self.lines[other])
                if found.slots == line.slots:
                    return self._typed(grammar.expand(found.choice, rng), slots, rng)
            if kind == "foreign":
                swapped = self.foreign.swapped(line.intent, plain, rng)
                if swapped is not None:
                    return self._typed(swapped, slots, rng)
            if kind == "negation":
                changed = negated(plain, rng)
                if changed is not None:
                    return self._typed(changed, slots, rng)
        return self._typed(self.foreign.framed(rng), {}, rng)

    def _other_values(self, slots: dict[str, str], rng: random.Random) -> dict[str, str]:
        make = {"order": self.pools.order, "product": self.pools.product, "name": self.pools.name}
        return {
            slot: nearby(value, rng) if slot == "order" and rng.random() < 0.5 else make[slot](rng)
            for slot, value in slots.items()
        }

    def _typed(self, text: str, slots: dict[str, str], rng: random.Random, *, noise: bool = True) -> str:
        for slot, mark in MARKS.items():
            text = text.replace("{" + slot + "}", mark)
        if noise and rng.random() > 0.2:
            text = self._noisy(text, rng)
        lower = rng.random() < 0.25
        for slot, mark in MARKS.items():
            if mark in text:
                value = slots.get(slot) or self.pools.name(rng)
                text = text.replace(mark, value.lower() if lower and slot != "order" else value)
        return text

    def _noisy(self, text: str, rng: random.Random) -> str:
        before = negations(text)
        for _ in range(4):
            changed = self.noise.words(text, rng)
            if negations(changed) == before:  # a lost "not" is no noise
                text = changed
                break
        text = self.noise.around(text, rng).replace("{name}", MARKS["name"])
        return self.noise.typing(text, rng)

    def _key(self, line: Phrasing, slots: dict[str, str]) -> str:
        if line.intent == OFF_TOPIC:
            return line.text
        return " ".join(
            (line.intent, *(f"{slot}={value.lower()}" for slot, value in sorted(slots.items()) if slot != "name"))
        )

    def _with_value(self, line: Phrasing) -> bool:
        return bool(line.slots & {"order", "product"})


def nearby(number: str, rng: random.Random) -> str:
    """The order number with one digit changed, or two neighbours swapped."""
    at = [i for i, sign in enumerate(number) if sign.isdigit()]
    spot = rng.choice(at)
    if rng.random() < 0.3 and spot + 1 in at and number[spot] != number[spot + 1]:
        return number[:spot] + number[spot + 1] + number[spot] + number[spot + 2 :]
    return number[:spot] + rng.choice([d for d in "0123456789" if d != number[spot]]) + number[spot + 1 :]
