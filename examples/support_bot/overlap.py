"""How much of the evaluation set's wording stands in the training text.

    python -m examples.support_bot.overlap --count 20000

Prints the share of the questions' word 3-grams and 5-grams that training text has too, and how many whole questions
it has. Slot values count as one word, the same for all. Exits with 1 where training text has a question of three or more words
word for word, or an order number, product or name of the evaluation set.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from examples.support_bot.evaluate import Question, questions
from examples.support_bot.excluded import QUESTIONS, long_enough, plain
from examples.support_bot.generator import Corpus, Turn, open_corpus


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What training and evaluation share."""

    shared: dict[int, float]  # by n: mean share of a question's word n-grams that training text has
    covered: dict[int, int]  # by n: questions of which training text has every n-gram
    short: int  # questions of one or two words that training text has, such as "thank you"
    duplicates: tuple[str, ...]  # ids of longer questions that training text has word for word
    values: tuple[str, ...]  # slot values that training text has
    questions: int

    @property
    def clean(self) -> bool:
        """Whether no question and no value is shared."""
        return not self.duplicates and not self.values


def compare(asked: list[Question], turns: Iterable[Turn], sizes: tuple[int, ...] = (3, 5)) -> Overlap:
    """Compares the last question of each conversation with training turns."""
    known: dict[int, set[tuple[str, ...]]] = {n: set() for n in sizes}
    whole: set[str] = set()
    used: set[str] = set()
    for turn in turns:
        text = plain(turn.question, turn.slots.values())
        whole.add(text)
        used.update(value.lower() for value in turn.slots.values())
        for n in sizes:
            known[n].update(grams(text, n))
    texts = {q.id: plain(q.turns[-1]["content"], q.facts.values()) for q in asked}
    shares = {n: [_share(grams(text, n), known[n]) for text in texts.values() if len(text.split()) >= n] for n in sizes}
    same = [name for name, text in texts.items() if text in whole]
    return Overlap(
        shared={n: sum(found) / max(len(found), 1) for n, found in shares.items()},
        covered={n: sum(share == 1.0 for share in found) for n, found in shares.items()},
        short=sum(not long_enough(texts[name]) for name in same),
        duplicates=tuple(name for name in same if long_enough(texts[name])),
        values=tuple(sorted({v for q in asked for v in q.facts.values() if v.lower() in used})),
        questions=len(asked),
    )


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    """The word n-grams of a text out of `plain`."""
    words = text.split()
    return {tuple(words[at : at + n]) for at in range(len(words) - n + 1)}


def _share(found: set[tuple[str, ...]], known: set[tuple[str, ...]]) -> float:
    return len(found & known) / max(len(found), 1)


def drawn(corpus: Corpus, count: int, seed: int) -> Iterable[Turn]:
    """The turns of `count` conversations."""
    rng = random.Random(seed)
    for _ in range(count):
        yield from corpus.conversation(rng).turns


def report(overlap: Overlap) -> str:
    """The comparison in words."""
    lines = [
        f"{n}-grams: {overlap.shared[n]:.1%} of an evaluation question's also stand in training text; "
        f"all of them for {overlap.covered[n]} of {overlap.questions} questions"
        for n in overlap.shared
    ]
    lines.append(f"whole questions of one or two words in training text: {overlap.short}")
    lines.append(
        f"longer questions in training text word for word: {len(overlap.duplicates)} {' '.join(overlap.duplicates)}"
    )
    lines.append(
        f"order numbers, products and names in training text: {len(overlap.values)} {' '.join(overlap.values)}"
    )
    return "\n".join(line.rstrip() for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20000, help="training conversations to look at")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--questions", type=Path, default=QUESTIONS)
    args = parser.parse_args()
    overlap = compare(questions(args.questions), drawn(open_corpus(), args.count, args.seed))
    print(report(overlap))
    sys.exit(0 if overlap.clean else 1)


if __name__ == "__main__":
    main()
