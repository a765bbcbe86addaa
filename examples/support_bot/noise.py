"""What people do to a sentence when they type it: other words, greetings, typos, missing letters, capitals and stops.

Slots stand in the text as one private-use character each while noise is added, so that no noise touches a value.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

from examples.support_bot import grammar

HERE = Path(__file__).parent
MARKS = {"order": "\ue000", "product": "\ue001", "name": "\ue002"}
_MARKED = re.compile("[\ue000-\ue002]")
_NEAR = {
    "a": "sq",
    "b": "vn",
    "c": "xv",
    "d": "sf",
    "e": "wr",
    "f": "dg",
    "g": "fh",
    "h": "gj",
    "i": "uo",
    "k": "jl",
    "l": "k",
    "m": "n",
    "n": "bm",
    "o": "ip",
    "p": "o",
    "r": "et",
    "s": "ad",
    "t": "ry",
    "u": "yi",
    "v": "cb",
    "w": "qe",
    "y": "tu",
}
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_STREETS = [
    "Hill",
    "Mill",
    "Park",
    "Church",
    "Station",
    "Garden",
    "Rose",
    "Linden",
    "Market",
    "Bridge",
    "Forest",
    "Lake",
]
_SMALL_WORDS = {
    "the",
    "a",
    "an",
    "is",
    "are",
    "my",
    "to",
    "of",
    "for",
    "it",
    "do",
    "does",
    "i",
    "and",
    "that",
    "please",
    "was",
    "have",
    "has",
}


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Adds noise to a text with marks in place of slots."""

    prefixes: tuple[grammar.Choice, ...]
    suffixes: tuple[grammar.Choice, ...]
    fillers: tuple[grammar.Choice, ...]
    synonyms: dict[str, tuple[str, ...]]
    pattern: re.Pattern[str]

    @classmethod
    def read(cls, folder: Path = HERE / "corpus" / "lists") -> Noise:
        """Reads the lists of a folder."""

        def lines(name: str) -> list[str]:
            return (folder / name).read_text(encoding="utf-8").splitlines()

        def phrasings(name: str) -> tuple[grammar.Choice, ...]:
            return tuple(grammar.parse(line) for line in lines(name))

        synonyms: dict[str, tuple[str, ...]] = {}
        for line in lines("synonyms.txt"):
            group = line.split("|")
            for word in group:
                synonyms[word] = synonyms.get(word, ()) + tuple(other for other in group if other != word)
        alternatives = "|".join(re.escape(word) for word in sorted(synonyms, key=len, reverse=True))
        return cls(
            prefixes=phrasings("prefixes.txt"),
            suffixes=phrasings("suffixes.txt"),
            fillers=phrasings("fillers.txt"),
            synonyms=synonyms,
            pattern=re.compile(rf"(?<![\w'])(?:{alternatives})(?![\w'])", re.IGNORECASE),
        )

    def around(self, text: str, rng: random.Random) -> str:
        """The sentence with a greeting before, a plea behind or a sentence of no meaning beside it, now and then."""
        if rng.random() < 0.06:
            filler = self._fill(grammar.expand(rng.choice(self.fillers), rng), rng)
            text = f"{filler} {text}" if rng.random() < 0.6 else f"{_stopped(text)} {filler}"
        if rng.random() < 0.22:
            text = f"{grammar.expand(rng.choice(self.prefixes), rng)} {text}"
        if rng.random() < 0.16:
            ending = grammar.expand(rng.choice(self.suffixes), rng)
            text = f"{_stopped(text) if rng.random() < 0.6 else text.rstrip('.')} {ending}"
        return grammar.tidy(text)

    def words(self, text: str, rng: random.Random) -> str:
        """Other words for some, and some left out."""
        if rng.random() < 0.45:
            rate = rng.choice((0.15, 0.3, 0.5))
            text = self.pattern.sub(lambda match: self._other(match, rate, rng), text)
        if rng.random() < 0.15:
            text = " ".join(word for word in text.split(" ") if not self._dropped(word, rng)) or text
        return text

    def typing(self, text: str, rng: random.Random) -> str:
        """Typos, capitals and stops as people type them."""
        if rng.random() < 0.14:
            for _ in range(rng.choice((1, 1, 2, 3))):
                text = _typo(text, rng)
        case = rng.random()
        if case < 0.33:
            text = text.lower()
        elif case < 0.35:
            text = text.upper()
        elif case < 0.62:
            text = text[:1].upper() + text[1:]
        stops = rng.random()
        if stops < 0.22:
            text = text.rstrip(".?!")
        elif stops < 0.34:
            text = re.sub(r"[.,?!;:]+(?=\s|$)", "", text)
        elif stops < 0.37:
            text = text.rstrip(".?!") + rng.choice(("!!", "???", "?!", "...", " !", " ?", "!!!"))
        if rng.random() < 0.06:
            text = text.replace("'", "").replace("\u2019", "")
        return grammar.tidy(text)

    def _other(self, match: re.Match[str], rate: float, rng: random.Random) -> str:
        found = match.group()
        if rng.random() > rate:
            return found
        other = rng.choice(self.synonyms[found.lower()])
        return other[:1].upper() + other[1:] if found[:1].isupper() else other

    @staticmethod
    def _dropped(word: str, rng: random.Random) -> bool:
        return not _MARKED.search(word) and rng.random() < (0.3 if word.lower() in _SMALL_WORDS else 0.05)

    @staticmethod
    def _fill(text: str, rng: random.Random) -> str:
        filled = text.replace("{day}", str(rng.randrange(1, 29))).replace("{small}", str(rng.randrange(2, 13)))
        filled = filled.replace("{price}", str(rng.randrange(5, 900))).replace("{month}", rng.choice(_MONTHS))
        return filled.replace("{street}", rng.choice(_STREETS))


def _stopped(text: str) -> str:
    return text if text[-1:] in ".?!," else text + "."


def _typo(text: str, rng: random.Random) -> str:
    """One letter swapped, lost, doubled, or hit beside the right key; words with marks are spared."""
    words = text.split(" ")
    spots = [at for at, word in enumerate(words) if len(word) > 3 and not _MARKED.search(word)]
    if not spots:
        return text
    at = rng.choice(spots)
    word = words[at]
    cut = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        word = word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :]
    elif kind == 1:
        word = word[:cut] + word[cut + 1 :]
    elif kind == 2:
        word = word[:cut] + word[cut] + word[cut:]
    else:
        word = word[:cut] + rng.choice(_NEAR.get(word[cut].lower(), word[cut])) + word[cut + 1 :]
    words[at] = word
    return " ".join(words)
