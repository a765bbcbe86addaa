"""What training must not see because the evaluation set has it: its slot values, and its questions word for word.

Nothing is chosen or worded by this; it only takes away, so that the figures are about questions that are new to the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

QUESTIONS = Path(__file__).parent / "evaluation" / "questions.jsonl"
SHORTEST = (
    3  # words, values not counted, that make a question one's own; anybody says "thank you" or gives a bare number
)
_WORD = re.compile(r"[\w']+")
_VALUE = "_"


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """Slot values in lower case, and questions as words with `_` for each value."""

    values: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()

    @classmethod
    def read(cls, path: Path = QUESTIONS) -> Excluded:
        """Reads the fields `order`, `product` and `name`, and what users say, out of the evaluation set."""
        values: set[str] = set()
        texts: set[str] = set()
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found = [row[field] for field in ("order", "product", "name") if row.get(field)]
            values.update(value.lower() for value in found)
            texts.update(plain(turn["content"], found) for turn in row["turns"] if turn["role"] == "user")
        return cls(values=frozenset(values), texts=frozenset(text for text in texts if long_enough(text)))

    def hit(self, value: str) -> bool:
        """Whether the evaluation set has this value."""
        return value.lower() in self.values

    def asked(self, question: str, values: Iterable[str]) -> bool:
        """Whether the evaluation set has this question, whatever the values, the capitals and the stops."""
        return plain(question, values) in self.texts


def plain(text: str, values: Iterable[str] = ()) -> str:
    """The words of a text in lower case, each slot value made `_`."""
    for value in values:
        text = text.replace(value, _VALUE)
    return " ".join(_WORD.findall(text.lower().replace("\u2019", "'")))


def long_enough(text: str) -> bool:
    """Whether a text out of `plain` has words enough to count as somebody's own."""
    return sum(word != _VALUE for word in text.split()) >= SHORTEST
