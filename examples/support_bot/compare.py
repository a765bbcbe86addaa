"""Compares two versions that answered the same questions: differences of shares, with 95 % intervals.

    python -m examples.support_bot.evaluate --openvino A/openvino-int8 --each ../a.jsonl
    python -m examples.support_bot.evaluate --openvino B/openvino-int8 --each ../b.jsonl
    python -m examples.support_bot.compare ../a.jsonl ../b.jsonl

The second is told against the first. An answer is unwanted if the rules find anything wrong with it: another intent's, a fact that is not copied or
invented, help with what is not the shop's business, a refusal of what is. The intervals are those of paired shares (Newcombe 1998, Statistics
in Medicine 17, 2635-2650, method 10). --card FILE writes the table into a model card, between its markers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.support_bot.figures import write_between
from examples.support_bot.shop import OFF_TOPIC
from penstock.registry.paired import Difference, paired_shares

MARKERS = ("<!-- difference: made by compare.py, do not edit -->", "<!-- end of difference -->")
Row = dict[str, Any]
# Of which questions, and what is counted.
FIGURES: dict[str, tuple[Callable[[Row], bool], Callable[[Row], bool]]] = {
    "unwanted answers": (lambda row: True, lambda row: not row["right"]),
    "in-scope questions answered right": (lambda row: row["intent"] != OFF_TOPIC, lambda row: bool(row["right"])),
    "off-topic questions refused": (lambda row: row["intent"] == OFF_TOPIC, lambda row: row["said"] == OFF_TOPIC),
    "in-scope questions wrongly refused": (
        lambda row: row["intent"] != OFF_TOPIC,
        lambda row: row["said"] == OFF_TOPIC,
    ),
    "answers with an invented fact": (lambda row: True, lambda row: bool(row["invented"])),
}


def compared(first: list[Row], second: list[Row]) -> dict[str, Difference]:
    """Each figure's difference, the second less the first.

    Raises:
        ValueError: if they did not answer the same questions.
    """
    theirs = {row["id"]: row for row in second}
    if len(theirs) != len(second) or sorted(theirs) != sorted(row["id"] for row in first):
        raise ValueError("The two did not answer the same questions, each once.")
    found = {}
    for name, (counts, hit) in FIGURES.items():
        cells = [(hit(theirs[row["id"]]), hit(row)) for row in first if counts(row)]
        found[name] = paired_shares(
            *(cells.count(cell) for cell in ((True, True), (True, False), (False, True), (False, False)))
        )
    return found


def table(found: dict[str, Difference]) -> str:
    """A Markdown table, the differences in points of a hundred."""
    lines = [
        "| figure | first | second | difference in points | 95 % interval | questions |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {one.incumbent:.1%} | {one.candidate:.1%} | {100 * one.estimate:+.1f} | {100 * one.low:+.1f} to {100 * one.high:+.1f} | {one.pairs} |"
        for name, one in found.items()
    ]
    return "\n".join(lines)


def read_each(path: Path) -> list[Row]:
    """What `evaluate.py --each` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--card", type=Path, help="model card to write the table into")
    parser.add_argument(
        "--heading", default="The second against the first, on the same questions:", help="above it, in the card"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    args = parser.parse_args()
    found = compared(read_each(args.first), read_each(args.second))
    fields = ("incumbent", "candidate", "estimate", "low", "high", "pairs", "discordant")
    plain = {name: {field: getattr(one, field) for field in fields} for name, one in found.items()}
    print(json.dumps(plain, indent=2) if args.json else table(found))
    if args.card:
        write_between(args.card, MARKERS, f"{args.heading}\n\n{table(found)}")


if __name__ == "__main__":
    main()
