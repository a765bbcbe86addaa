"""What the semantic cache does with the embedder: hits on paraphrases, wrong hits, and the threshold that they were set with.

    python -m examples.support_bot.embedder.evaluate examples/support_bot/models/support-embedder-v1.0.0/openvino-int8 --card examples/support_bot/models/support-embedder-v1.0.0/README.md

The threshold is chosen by held-out lines of the writers that the embedder was trained on; all figures are about a writer whom it has
never read. The evaluation set of the chatbot has no part in either.
"""

from __future__ import annotations

import argparse
import random
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.support_bot.embedder.lookalikes import lookalikes
from examples.support_bot.embedder.pairs import HELD_OUT_VOICE, TRAINED_VOICES, Text, Writer
from examples.support_bot.figures import Share
from penstock.engine.embedder import Model
from penstock.engine.text import Tokenizer
from penstock.routing.agreement import Marks, agree, marks

START, END = "<!-- figures: made by evaluate.py, do not edit -->", "<!-- end of figures -->"
MOST_WRONG = 1e-6  # of pairs that ask different things, at the threshold that is chosen
_SHELF = 300  # questions that a cache has seen


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A text as the cache keeps it."""

    text: Text
    vector: array[float]
    marks: Marks


class Eyes:
    """Texts to what the cache keeps of them."""

    def __init__(self, folder: Path) -> None:
        self._model, self._tokenizer = Model(folder, 1), Tokenizer(folder)

    def see(self, texts: Sequence[Text]) -> list[Seen]:
        """Each text with its vector and marks."""
        vectors: list[bytes] = []
        for start in range(0, len(texts), 32):
            vectors += self._model.vectors(
                [self._tokenizer.encode(text.text, special=True)[:256] for text in texts[start : start + 32]]
            )
        return [
            Seen(text=text, vector=array("f", vector), marks=marks(text.text))
            for text, vector in zip(texts, vectors, strict=True)
        ]

    def plain(self, texts: Sequence[str]) -> list[Seen]:
        """The same for bare texts."""
        return self.see([Text(text=text, key=text, line=text) for text in texts])


def alike(one: Seen, other: Seen) -> float:
    """The cosine of their vectors, which have the length 1."""
    return sum(a * b for a, b in zip(one.vector, other.vector, strict=True))


def choose_threshold(eyes: Eyes, count: int = 1500) -> float:
    """The smallest threshold, in steps of 0.01, at which held-out lines give at most `MOST_WRONG` wrong hits a pair."""
    seen = eyes.see(drawn(Writer(voices=TRAINED_VOICES, held_out=True), count, seed=3))
    wrong, pairs = [], 0
    for at, one in enumerate(seen):
        for other in seen[:at]:
            if one.text.key != other.text.key:
                pairs += 1
                if agree(one.marks, other.marks) and (score := alike(one, other)) > 0.5:
                    wrong.append(score)
    allowed = int(pairs * MOST_WRONG)
    worst = sorted(wrong, reverse=True)
    edge = worst[allowed] if len(worst) > allowed else 0.5
    return int(edge * 100 + 1) / 100


def drawn(writer: Writer, count: int, seed: int) -> list[Text]:
    """Texts as customers would type them."""
    rng = random.Random(seed)
    lines = [writer.line(rng) for _ in range(count)]
    return [writer.text(line, writer.slots(line, rng), rng) for line in lines]


def reworded(writer: Writer, count: int, seed: int) -> list[tuple[Text, Text]]:
    """Two ways to write one sentence: other words of the same meaning, greetings, pleas, capitals and stops. No typing mistakes."""
    rng = random.Random(seed)
    pairs: list[tuple[Text, Text]] = []
    while len(pairs) < count:
        line = writer.line(rng)
        slots = writer.slots(line, rng)
        first = writer.text(line, slots, rng, noise=False)
        other = writer.reworded(first, rng)
        if other.lower() != first.text.lower():
            pairs.append((first, Text(text=other, key=first.key, line=first.line, slots=slots)))
    return pairs


def asked_otherwise(writer: Writer, count: int, seed: int) -> list[tuple[Text, Text]]:
    """Two sentences of one intent with the same values; either may tell more than the other."""
    rng = random.Random(seed)
    pairs: list[tuple[Text, Text]] = []
    while len(pairs) < count:
        line = writer.line(rng)
        other = writer.like(line, rng, same_line=0.0)
        if other is not line:
            slots = writer.slots(line, rng)
            pairs.append((writer.text(line, slots, rng), writer.text(other, slots, rng)))
    return pairs


def hits(eyes: Eyes, pairs: Sequence[tuple[Text, Text]], threshold: float) -> Share:
    """How many second texts get the answer that was kept for the first."""
    firsts, seconds = eyes.see([a for a, _ in pairs]), eyes.see([b for _, b in pairs])
    found = sum(hit(a, b, threshold) for a, b in zip(firsts, seconds, strict=True))
    return Share(hits=found, total=len(pairs))


def hit(kept: Seen, asked: Seen, threshold: float) -> bool:
    """Whether the answer to `kept` is given to `asked`."""
    return agree(kept.marks, asked.marks) and alike(kept, asked) >= threshold


def wrong_hits(eyes: Eyes, count: int, threshold: float, seed: int = 23) -> tuple[dict[str, Share], Share]:
    """Hits among pairs that differ in one thing only, by what that is; and how many the embedding alone would take for the same."""
    pairs = lookalikes(Writer(voices=(HELD_OUT_VOICE,), held_out=None), count, seed)
    ones, others = eyes.plain([pair.one for pair in pairs]), eyes.plain([pair.other for pair in pairs])
    shares: dict[str, list[bool]] = {}
    near = 0
    for pair, one, other in zip(pairs, ones, others, strict=True):
        shares.setdefault(pair.kind, []).append(hit(one, other, threshold))
        near += alike(one, other) >= threshold
    return {kind: Share(hits=sum(found), total=len(found)) for kind, found in shares.items()}, Share(
        hits=near, total=len(pairs)
    )


def in_use(eyes: Eyes, count: int, threshold: float, seed: int = 13) -> tuple[Share, Share]:
    """A cache that has seen some questions, and as many new ones: how many it answers, and how many of these wrongly."""
    seen = eyes.see(drawn(Writer(voices=(HELD_OUT_VOICE,), held_out=None), _SHELF + count, seed))
    shelf, answered, wrong = seen[:_SHELF], 0, 0
    for asked in seen[_SHELF:]:
        near = max(
            ((alike(kept, asked), at) for at, kept in enumerate(shelf) if agree(kept.marks, asked.marks)),
            default=(0.0, 0),
        )
        if near[0] >= threshold:
            answered += 1
            wrong += shelf[near[1]].text.key != asked.text.key
    return Share(hits=answered, total=count), Share(hits=wrong, total=count)


def figures(eyes: Eyes, threshold: float) -> list[tuple[str, Share]]:
    """All of them."""
    writer = Writer(voices=(HELD_OUT_VOICE,), held_out=None)
    wrong, near = wrong_hits(eyes, 3000, threshold)
    answered, mistaken = in_use(eyes, 600, threshold)
    return [
        ("paraphrases answered: the sentence in other words", hits(eyes, reworded(writer, 1000, 17), threshold)),
        (
            "paraphrases answered: another sentence of the same intent",
            hits(eyes, asked_otherwise(writer, 1000, 19), threshold),
        ),
        *(
            (f"wrong hits: another {kind}" if kind != "negation" else "wrong hits: one negation more or less", share)
            for kind, share in wrong.items()
        ),
        ("of these pairs, near enough for the embedding alone", near),
        (f"new questions answered from a cache of {_SHELF}", answered),
        ("new questions answered wrongly from it", mistaken),
    ]


def table(rows: Sequence[tuple[str, Share]], threshold: float) -> str:
    """The figures in Markdown."""
    lines = [f"Threshold {threshold:.2f}.", "", "| | share | 95 % interval | of |", "|---|---|---|---|"]
    for name, share in rows:
        low, high = share.interval()
        lines.append(f"| {name} | {share.value:.1%} | {low:.1%} to {high:.1%} | {share.total} |")
    return "\n".join(lines)


def write_card(card: Path, text: str) -> None:
    """Puts `text` between the marks of the card."""
    whole = card.read_text(encoding="utf-8")
    head, rest = whole.split(START)
    card.write_text(f"{head}{START}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the OpenVINO folder")
    parser.add_argument("--threshold", type=float, help="instead of the one that the held-out lines give")
    parser.add_argument("--card", type=Path, help="model card to write the figures into")
    args = parser.parse_args()
    began = time.monotonic()
    eyes = Eyes(args.folder)
    threshold = args.threshold or choose_threshold(eyes)
    print(f"threshold {threshold:.2f} ({time.monotonic() - began:.0f} s)", flush=True)
    text = table(figures(eyes, threshold), threshold)
    print(text)
    if args.card is not None:
        write_card(args.card, text)


if __name__ == "__main__":
    main()
