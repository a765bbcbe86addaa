"""Writes questions of made-up customers for population.py and evaluate.py, drawn from the corpus: none of the evaluation set's is among them.

    python -m examples.support_bot.visitors --count 600 --out ../visitors.jsonl
    python -m examples.support_bot.visitors --count 2000 --held-out --out ../held-out.jsonl

Each line is a conversation in the form of the evaluation set (evaluation/README.md), with the right answer's intent and facts. --held-out
draws from the lines that no training ever sees.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples.support_bot.generator import Corpus, open_corpus


def visitors(corpus: Corpus, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` conversations whose last turn is to be answered; the same for the same seed."""
    rng = random.Random(seed)
    for number in range(count):
        conversation = corpus.conversation(rng)
        last = conversation.turns[-1]
        turns = [message for message in conversation.messages()[:-1] if message["role"] != "system"]
        yield {"id": f"{last.intent}-{number}", "intent": last.intent, "turns": turns, **last.slots}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--held-out", action="store_true", help="from the lines that are never trained on")
    parser.add_argument("--voices", default="", help="of these writers only, separated by commas")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    voices = tuple(args.voices.split(",")) if args.voices else None
    rows = visitors(open_corpus(held_out=args.held_out, voices=voices), args.count, args.seed)
    args.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
