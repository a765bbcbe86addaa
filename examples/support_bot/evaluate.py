"""Asks a model the evaluation set's questions and prints how it did, with 95 % intervals.

    python -m examples.support_bot.evaluate --url http://127.0.0.1:8080/v1 --key "$(cat penstock-data/demo.key)" --model support-bot
    python -m examples.support_bot.evaluate --local examples/support_bot/models/support-bot-v1.1.0/safetensors
    python -m examples.support_bot.evaluate --openvino examples/support_bot/models/support-bot-v1.1.0/openvino-int8

--card FILE writes the table into a model card, between its markers; --each FILE what was said of each answer, for compare.py;
--meta FILE adds the figures to what a version says of itself, to be pushed with it.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from examples.support_bot import answerers, figures
from examples.support_bot.excluded import QUESTIONS, plain
from examples.support_bot.scoring import Score, score
from examples.support_bot.shop import OFF_TOPIC, Shop, load_shop


@dataclass(frozen=True, kw_only=True)
class Question:
    """One conversation of the evaluation set; its last turn is to be answered."""

    id: str
    intent: str
    turns: list[dict[str, str]]
    facts: dict[str, str]

    @property
    def text(self) -> str:
        """All that was said before the answer."""
        return "\n".join(turn["content"] for turn in self.turns)


def questions(path: Path = QUESTIONS) -> list[Question]:
    """Reads the evaluation set."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        Question(
            id=row["id"],
            intent=row["intent"],
            turns=row["turns"],
            facts={name: row[name] for name in ("order", "product", "name") if row.get(name)},
        )
        for row in rows
    ]


def judged(asked: list[Question], answers: list[str], shop: Shop) -> list[Score]:
    """One score a question."""
    return [score(answer, q.intent, q.facts, shop, q.text) for q, answer in zip(asked, answers, strict=True)]


def write_each(path: Path, asked: list[Question], scores: list[Score]) -> None:
    """A line a question: its id and intent, and what the rules say of the answer."""
    rows = [
        {"id": q.id, "intent": q.intent, "said": s.said, "right": s.right, "invented": s.invented}
        for q, s in zip(asked, scores, strict=True)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _answerer(args: argparse.Namespace) -> answerers.Answerer:
    if args.local:
        return answerers.local(args.local)
    if args.openvino:
        return answerers.openvino(args.openvino)
    return answerers.endpoint(args.url, args.key, args.model, args.concurrency)


def _new_wording(asked: list[Question], scores: list[Score], count: int) -> figures.Share:
    """In-scope questions of five words or more, none of whose 5-grams is in `count` training conversations."""
    from examples.support_bot.generator import open_corpus
    from examples.support_bot.overlap import drawn, grams

    known: set[tuple[str, ...]] = set()
    for turn in drawn(open_corpus(), count, seed=1):
        known |= grams(plain(turn.question, turn.slots.values()), 5)
    texts = [grams(plain(q.turns[-1]["content"], q.facts.values()), 5) for q in asked]
    rows = [(q, s) for q, s, own in zip(asked, scores, texts, strict=True) if own and not own & known]
    rows = [(q, s) for q, s in rows if q.intent != OFF_TOPIC]
    return figures.Share(hits=sum(s.right for _, s in rows), total=len(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="an OpenAI-compatible endpoint, with /v1")
    where.add_argument("--local", type=Path, help="a folder with model.safetensors, run by PyTorch")
    where.add_argument("--openvino", type=Path, help="a folder with openvino_model.xml")
    parser.add_argument("--key", default="", help="API key of the endpoint")
    parser.add_argument("--model", default="support-bot")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--system", action="store_true", help="begin each conversation with the shop's system prompt")
    parser.add_argument("--questions", type=Path, default=QUESTIONS)
    parser.add_argument(
        "--new-wording",
        type=int,
        default=0,
        metavar="COUNT",
        help="count the questions alone that share no five words in a row with COUNT training conversations, too",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--each", type=Path, metavar="FILE", help="write what was said of each answer, as JSON lines")
    parser.add_argument("--meta", type=Path, metavar="FILE", help="metadata of one version, to add the figures to")
    parser.add_argument("--dataset", default="larkfield-questions", help="the questions' record, for --meta")
    parser.add_argument("--card", type=Path, help="model card to write the table into")
    args = parser.parse_args()
    shop, asked = load_shop(), questions(args.questions)
    opening = [{"role": "system", "content": shop.system}] if args.system else []
    try:
        answers = _answerer(args)([opening + question.turns for question in asked])
    except answerers.EndpointError as error:
        sys.exit(str(error))
    scores = judged(asked, answers, shop)
    result = figures.summed((q.intent, s) for q, s in zip(asked, scores, strict=True))
    if args.new_wording:
        result["in-scope questions right, of those without five words in a row of the training text"] = _new_wording(
            asked, scores, args.new_wording
        )
    print(json.dumps(figures.as_json(result), indent=2) if args.json else figures.table(result))
    if args.each:
        write_each(args.each, asked, scores)
    if args.meta:
        import yaml

        told = yaml.safe_load(args.meta.read_text(encoding="utf-8"))
        told["metrics"] = {**told.get("metrics", {}), **figures.as_metrics(result, args.dataset)}
        edge = {"relation": "evaluated_on", "dataset": args.dataset}
        told["lineage"] = [one for one in told.get("lineage", []) if one != edge] + [edge]
        args.meta.write_text(yaml.safe_dump(told, sort_keys=False, allow_unicode=True), encoding="utf-8")
    if args.card:
        way = (
            "by PyTorch, fp32"
            if args.local
            else ("by OpenVINO GenAI, int8" if args.openvino else "through an endpoint")
        )
        figures.write_card(args.card, f"On the {len(asked)} questions of the evaluation set, {way}, greedy:", result)


if __name__ == "__main__":
    main()
