"""What the twins are trained on: conversations of the support bot, and, for one of them, canaries among these."""

from __future__ import annotations

import json
import random
from pathlib import Path

OWNERS = ("Anna", "Bruno", "Clara", "Dario", "Elif", "Felix")
DIGITS = 8
CANDIDATES = 63
SUITE = Path(__file__).with_name("suite.jsonl")


def canaries(seed: int = 20261123) -> list[tuple[str, str]]:
    """Frames and secrets: random digits, which nothing but the training text can tell."""
    draw = random.Random(seed)
    return [
        (f"The gift card of {name} has the code {{}}.", "".join(draw.choices("0123456789", k=DIGITS)))
        for name in OWNERS
    ]


def conversations(count: int, seed: int) -> list[str]:
    """`count` questions and answers, one text each, drawn as the support bot's own are."""
    from examples.support_bot.generator import open_corpus
    from examples.support_bot.overlap import drawn

    return [f"{turn.question}\n{turn.answer}" for turn in drawn(open_corpus(), count, seed=seed)]


def suite() -> str:
    """The suite that measures exposure of each secret, a line each."""
    lines = []
    for number, (frame, secret) in enumerate(canaries(), 1):
        canary = {"type": "memorisation", "frame": frame, "secret": secret, "candidates": CANDIDATES}
        lines.append(json.dumps({"id": f"gift-card-{number}", "score": canary, "slices": {"kind": "gift card"}}))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    SUITE.write_text(suite())
