"""A population of customers: asks the evaluation questions through a gateway and tells whether each answer was right.

    python -m examples.support_bot.population --url http://127.0.0.1:8080 --key "$(cat penstock-data/demo.key)" --users 2000

Each customer is a `user` of the API with one question drawn at random (seeded), so that an experiment whose unit is the user
sees independent units. The verdict on an answer is the evaluator's (`scoring.py`), sent as `POST /v1/feedback`; who is shown two answers
prefers the right one, sent as `POST /v1/preferences`. With --consent what they say may be trained on; with a --temperature above zero the same
question gets several answers, good and bad ones, which `penstock feedback export` makes pairs of. With --correct somebody of the shop's takes over
from an answer that was wrong, for so many of them, and what they answer is sent as the correction.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from examples.support_bot.scoring import score
from examples.support_bot.shop import HERE, Shop, load_shop

FACTS = ("order", "product", "name")


@dataclass(frozen=True, kw_only=True)
class Customer:
    """Where and how the population asks."""

    url: str
    key: str
    model: str
    seed: int
    temperature: float = 0.0
    consent: bool = False
    correct: float = 0.0


async def ask(
    http: httpx.AsyncClient, customer: Customer, number: int, question: dict[str, Any], shop: Shop
) -> tuple[str, bool]:
    """Asks one question and sends the feedback, or the preference where two answers came; gives the arm and whether its answer was right.

    Raises:
        httpx.HTTPStatusError: if the gateway refuses the question or the feedback.
    """
    headers = {"authorization": f"Bearer {customer.key}"}
    body = {
        "model": customer.model,
        "messages": [{"role": "system", "content": shop.system}, *question["turns"]],
        "user": f"customer-{customer.seed}-{number}",
        "temperature": customer.temperature,
        "max_tokens": 80,
    }
    reply = await http.post("/v1/chat/completions", json=body, headers=headers)
    reply.raise_for_status()
    answers = [choice["message"]["content"] for choice in reply.json()["choices"]]
    facts = {fact: question[fact] for fact in FACTS if fact in question}
    conversation = " ".join(turn["content"] for turn in question["turns"])
    rights = [score(answer, question["intent"], facts, shop, conversation).right for answer in answers]
    about: dict[str, Any] = {
        "id": f"told-{customer.seed}-{number}",
        "request_id": reply.headers["x-penstock-request-id"],
        **({"consent": True} if customer.consent else {}),
    }
    if len(answers) > 1:  # two were shown: the right one is preferred, if one alone is right
        chosen = rights.index(True) if sum(rights) == 1 else "tie"
        told = await http.post("/v1/preferences", headers=headers, json=about | {"chosen": chosen})
    else:
        if not rights[0] and random.Random(f"{customer.seed}:{number}").random() < customer.correct:
            about["corrected"] = shop.intents[question["intent"]].answer(0, facts)
        told = await http.post("/v1/feedback", headers=headers, json=about | {"success": rights[0]})
    told.raise_for_status()
    return reply.headers.get("x-penstock-arm") or reply.headers.get("x-penstock-version", ""), rights[0]


async def populate(
    customer: Customer, users: int, concurrency: int, questions: list[dict[str, Any]]
) -> dict[str, tuple[int, int]]:
    """Lets `users` customers ask; gives for each arm how many answers were right, and of how many."""
    shop = load_shop()
    draw = random.Random(customer.seed)
    waiting = list(enumerate(draw.choices(questions, k=users)))
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()

    async def one_after_another(http: httpx.AsyncClient) -> None:
        while waiting:
            number, question = waiting.pop()
            arm, good = await ask(http, customer, number, question, shop)
            asked[arm] += 1
            right[arm] += good
            if sys.stderr.isatty():
                print(f"\r{sum(asked.values())}/{users}", end="", file=sys.stderr)

    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with (
        httpx.AsyncClient(base_url=customer.url, timeout=120, limits=limits) as http,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(concurrency):
            group.create_task(one_after_another(http))
    return {arm: (right[arm], asked[arm]) for arm in sorted(asked)}


def main() -> int:
    """Prints what each arm answered right, as a table or with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--key", required=True)
    parser.add_argument("--model", default="support-bot")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--questions", type=Path, default=HERE / "evaluation" / "questions.jsonl")
    parser.add_argument("--temperature", type=float, default=0.0, help="of the answers; 0: the likeliest")
    parser.add_argument("--consent", action="store_true", help="let what they say be trained on")
    parser.add_argument(
        "--correct", type=float, default=0.0, help="share of the wrong answers that somebody puts right"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    questions = [json.loads(line) for line in options.questions.read_text(encoding="utf-8").splitlines()]
    customer = Customer(
        url=options.url,
        key=options.key,
        model=options.model,
        seed=options.seed,
        temperature=options.temperature,
        consent=options.consent,
        correct=options.correct,
    )
    arms = asyncio.run(populate(customer, options.users, options.concurrency, questions))
    if options.json:
        print(json.dumps({arm: {"right": good, "asked": of} for arm, (good, of) in arms.items()}))
    else:
        for arm, (good, of) in arms.items():
            print(f"{arm:40} {good:6} of {of:6} right  {good / of:6.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
