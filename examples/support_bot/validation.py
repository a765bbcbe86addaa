"""How the model does on held-out phrasing lines: what settings are chosen by, never the evaluation set."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

from examples.support_bot.chat import Coder
from examples.support_bot.generator import Corpus
from examples.support_bot.model import Llama, generate
from examples.support_bot.scoring import score
from examples.support_bot.shop import OFF_TOPIC

_BATCH = 60


def validate(model: Llama, coder: Coder, corpus: Corpus, *, count: int, seed: int = 7) -> dict[str, float]:
    """Shares over `count` conversations whose last question is answered by the likeliest tokens."""
    rng = random.Random(seed)
    conversations = [corpus.conversation(rng) for _ in range(count)]
    asked = [(c.messages()[:-1], c.turns[-1]) for c in conversations]
    prompts = sorted((coder.prompt(messages), at) for at, (messages, _) in enumerate(asked))
    prompts.sort(key=lambda pair: len(pair[0]))
    right = {True: 0, False: 0}
    total = {True: 0, False: 0}
    numbers = copied = refused = wanted = 0
    for start in range(0, count, _BATCH):
        part = prompts[start : start + _BATCH]
        answers = generate(model, [prompt for prompt, _ in part], coder.end)
        for (_, at), ids in zip(part, answers, strict=True):
            turn = asked[at][1]
            result = score(
                coder.decode(ids), turn.intent, turn.slots, corpus.shop, " ".join(m["content"] for m in asked[at][0])
            )
            in_scope = turn.intent != OFF_TOPIC
            total[in_scope] += 1
            right[in_scope] += result.intent_right
            wanted += result.right
            refused += in_scope and result.said == OFF_TOPIC
            if turn.slots and result.intent_right:
                numbers += 1
                copied += result.fact_right
    return {
        "unwanted": 1 - wanted / count,
        "right intent": right[True] / max(total[True], 1),
        "copied": copied / max(numbers, 1),
        "refused": right[False] / max(total[False], 1),
        "wrongly refused": refused / max(total[True], 1),
    }


def look(model: Llama, coder: Coder, corpus: Corpus, *, count: int, state: Path, step: int) -> None:
    """Prints the shares, and adds them to validation.jsonl in the folder `state`."""
    began = time.monotonic()
    model.eval()
    figures = validate(model, coder, corpus, count=count)
    model.train()
    shown = ", ".join(f"{name} {value:.1%}" for name, value in figures.items())
    print(f"\nheld-out lines: {shown} ({time.monotonic() - began:.0f} s)", flush=True)
    with (state / "validation.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **figures}) + "\n")
