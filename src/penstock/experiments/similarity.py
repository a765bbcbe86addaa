"""How alike two answers are, by their words: quick enough to be told of every copy, no judge of meaning."""

import re
from collections import Counter
from itertools import pairwise

MOST_CHARACTERS = 4096  # of each text
_WORD = re.compile(r"\w+|[^\w\s]")
MILLION = 1_000_000


def similarity(one: str, other: str) -> int:
    """Dice's coefficient over the words and the pairs of neighbouring words of both texts, in millionths: 1,000,000 for the same words.

    Case and white space do not count (Dice 1945, "Measures of the amount of ecologic association between species", Ecology 26).
    """
    parts = [_parts(one), _parts(other)]
    total = parts[0].total() + parts[1].total()
    if not total:
        return MILLION
    return round(2 * MILLION * (parts[0] & parts[1]).total() / total)


def _parts(text: str) -> Counter[str]:
    words = _WORD.findall(text[:MOST_CHARACTERS].lower())
    found = Counter(words)
    found.update(f"{first} {second}" for first, second in pairwise(words))
    return found
