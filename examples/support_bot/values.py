"""Order numbers, product names and first names in such numbers that a model must copy them: it cannot learn them by heart."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from examples.support_bot.excluded import Excluded

HERE = Path(__file__).parent
_ONSETS = [
    "b",
    "bl",
    "br",
    "c",
    "ch",
    "cl",
    "d",
    "dr",
    "f",
    "fl",
    "fr",
    "g",
    "gl",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "pr",
    "qu",
    "r",
    "s",
    "sc",
    "sh",
    "sk",
    "sl",
    "sm",
    "sn",
    "sp",
    "st",
    "sv",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "z",
]
_VOWELS = ["a", "a", "a", "e", "e", "e", "i", "i", "o", "o", "u", "y", "ae", "ai", "ea", "ee", "ei", "ie", "oa", "ou"]
_CODAS = ["", "", "", "", "l", "n", "r", "s", "t", "m", "x", "nd", "rt", "sk", "ld", "st", "rn", "ck", "ng"]


@dataclass(frozen=True, kw_only=True)
class Pools:
    """Word lists out of which values are made."""

    first_names: tuple[str, ...]
    nouns: tuple[str, ...]
    words: tuple[str, ...]
    names: tuple[str, ...]
    excluded: Excluded

    @classmethod
    def read(cls, excluded: Excluded, folder: Path = HERE / "corpus" / "lists") -> Pools:
        """Reads the lists of a folder."""

        def words(name: str, separator: str) -> tuple[str, ...]:
            return tuple((folder / name).read_text(encoding="utf-8").strip().split(separator))

        return cls(
            first_names=words("first_names.txt", " "),
            nouns=words("product_nouns.txt", "|"),
            words=words("product_words.txt", "|"),
            names=words("product_names.txt", "|"),
            excluded=excluded,
        )

    def order(self, rng: random.Random) -> str:
        """An order number."""
        return self._allowed(_order, rng)

    def product(self, rng: random.Random) -> str:
        """A product's name."""
        return self._allowed(self._product, rng)

    def name(self, rng: random.Random) -> str:
        """A customer's first name."""
        return self._allowed(self._name, rng)

    def _allowed(self, make: Callable[[random.Random], str], rng: random.Random) -> str:
        while True:
            value = make(rng)
            if not self.excluded.hit(value):
                return value

    def _name(self, rng: random.Random) -> str:
        if rng.random() < 0.6:
            return rng.choice(self.first_names)
        return invented(rng, rng.choice((1, 2, 2, 2, 3)))

    def _product(self, rng: random.Random) -> str:
        """1 to 3 parts: an own name, a property, a thing; at least a name or a thing among them."""
        own = rng.choice(self.names) if rng.random() < 0.25 else invented(rng, rng.choice((1, 2, 2, 2, 3)))
        noun = rng.choice(self.nouns)
        word = rng.choice(self.words)
        shape = rng.random()
        if shape < 0.22:
            return own
        if shape < 0.62:
            return f"{own} {noun}"
        if shape < 0.78:
            return f"{own} {word} {noun}"
        if shape < 0.9:
            return f"{word} {noun}"
        if shape < 0.95:
            return f"{own} {rng.randrange(2, 1000)}" if rng.random() < 0.5 else f"{own} {invented(rng, 2)}"
        return noun if rng.random() < 0.5 else f"{own} {' '.join(part.capitalize() for part in noun.split(' '))}"


def invented(rng: random.Random, syllables: int) -> str:
    """A proper name that no dictionary has, such as "Talvo"."""
    text = "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + (rng.choice(_CODAS) if rng.random() < 0.55 else "")
        for _ in range(syllables)
    )
    if syllables == 1 and len(text) < 3:
        text += rng.choice("aeo") + rng.choice("lnrst")
    return text.capitalize()


def _order(rng: random.Random) -> str:
    """4 to 9 digits, often with many repeats of one, sometimes with leading zeros or letters in front."""
    length = rng.choice((4, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 9))
    kind = rng.random()
    if kind < 0.45:
        digits = [rng.choice("0123456789") for _ in range(length)]
    elif kind < 0.75:
        few = rng.sample("0123456789", rng.choice((1, 2, 2, 3)))
        digits = [rng.choice(few) for _ in range(length)]
    else:
        digits = [rng.choice("0123456789")]
        while len(digits) < length:
            digits.append(digits[-1] if rng.random() < 0.4 else rng.choice("0123456789"))
    if rng.random() < 0.1:
        digits[:1] = ["0"] * rng.choice((1, 2))
    number = "".join(digits)
    if rng.random() < 0.2:
        letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.choice((1, 2, 2, 2, 3))))
        letters = letters.lower() if rng.random() < 0.1 else letters
        return letters + rng.choice(("-", "-", "-", "")) + number
    return number
