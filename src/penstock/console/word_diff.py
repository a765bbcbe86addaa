"""What two answers say alike and what each says alone, word by word."""

import re
from difflib import SequenceMatcher

import msgspec

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_MOST = 4_000  # words and spaces of one text that are compared


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of one text; `own`: the other one does not say it there."""

    text: str
    own: bool


def apart(first: str, other: str) -> tuple[list[Span], list[Span]]:
    """Both texts in pieces. What is beyond the first thousands of words stands whole, as its own."""
    texts = [_WORDS.findall(text) for text in (first, other)]
    heads = [words[:_MOST] for words in texts]
    sides: tuple[list[Span], list[Span]] = ([], [])
    for kind, a, b, c, d in SequenceMatcher(None, heads[0], heads[1], autojunk=False).get_opcodes():
        for side, words in ((0, heads[0][a:b]), (1, heads[1][c:d])):
            if words:
                sides[side].append(Span(text="".join(words), own=kind != "equal"))
    for side, words in enumerate(texts):
        if len(words) > _MOST:
            sides[side].append(Span(text="".join(words[_MOST:]), own=True))
    return sides
