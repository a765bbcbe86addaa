"""The phrasing files, read into lines by voice and intent, and split into lines to train on and lines held out."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from examples.support_bot import grammar
from examples.support_bot.shop import OFF_TOPIC, Shop

FOLDER = Path(__file__).parent / "corpus" / "phrasings"
ORDER_REPLY = "order_reply"
HELD_OUT_PART = 25  # one line of so many is never trained on


@dataclass(frozen=True, kw_only=True)
class Phrasing:
    """One line of a phrasing file."""

    voice: str
    intent: str
    text: str
    choice: grammar.Choice
    slots: frozenset[str]

    @property
    def held_out(self) -> bool:
        """Whether the line is for validation only."""
        return held_out(self.text)


def held_out(line: str) -> bool:
    """Whether a line belongs to the validation set; by its hash, so that adding lines moves no other."""
    return int.from_bytes(hashlib.sha256(line.encode()).digest()[:4], "big") % HELD_OUT_PART == 0


def load(shop: Shop, folder: Path = FOLDER, voices: tuple[str, ...] | None = None) -> list[Phrasing]:
    """Every usable line. A line that cannot be parsed, or has a slot that its intent lacks, is named on stderr and left out."""
    lines: list[Phrasing] = []
    for path in sorted(folder.glob("*/*.txt")):
        if voices is not None and path.parent.name not in voices:
            continue
        if path.stem not in (*shop.in_scope, OFF_TOPIC, ORDER_REPLY):
            print(f"{path}: no such intent, left out", file=sys.stderr)
            continue
        for text in dict.fromkeys(path.read_text(encoding="utf-8").splitlines()):
            if not text.strip():
                continue
            try:
                lines.append(_phrasing(shop, path.parent.name, path.stem, text.strip()))
            except (grammar.GrammarError, ValueError) as error:
                print(f"{path}: {error}, left out", file=sys.stderr)
    return lines


def _phrasing(shop: Shop, voice: str, intent: str, text: str) -> Phrasing:
    found = grammar.slots(text)
    wanted = "order" if intent == ORDER_REPLY else (None if intent == OFF_TOPIC else shop.intents[intent].slot)
    if found - {"order", "product", "name"} or text.count("{") != sum(text.count("{" + s + "}") for s in found):
        raise ValueError(f"unknown slot in the phrasing {text!r}")
    if wanted == "order" and intent == ORDER_REPLY and "order" not in found:
        raise ValueError(f"no {{order}} in the phrasing {text!r}")
    if wanted == "product" and "product" not in found:
        raise ValueError(f"no {{product}} in the phrasing {text!r}")
    return Phrasing(voice=voice, intent=intent, text=text, choice=grammar.parse(text), slots=frozenset(found))
