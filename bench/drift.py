"""`make bench-drift`: false alarms and delays of drift on the starter's two real models, through the real gateway and control's ingest.

Questions of the example's corpus are asked through `penstock up`: 20,000 of v1.1.0, then 2,000 of v1.0.0 under the same name, each with the evaluator's verdict as feedback. What the
gateway journalled is the recording. It is replayed ten times, each time in another order and into an empty control plane; then the second model is put in the first one's place, a hundred times.

    make bench-drift                        all of it, some twenty minutes of two cores
    make bench-drift ARGS="--part 0.05"     a twentieth
    make bench-drift ARGS="--json"          one JSON document

Exit code 1 if there is more than one false alarm, or a swap is not found within 500 requests.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
from sqlalchemy import select

from examples.support_bot.generator import Turn, conversations, open_corpus
from examples.support_bot.scoring import score
from examples.support_bot.shop import load_shop
from penstock.control.context import Control
from penstock.control.ingest.reader import ingest
from penstock.control.watch.drift_store import decode_group
from penstock.core.exchange import Exchange, Observation
from penstock.core.settings import Settings
from penstock.experiments.drift_signals import feedback_value, observed
from penstock.experiments.drift_watch import RUN_LENGTH, Watching, new_group
from penstock.experiments.metrics import told
from penstock.journal.format import Position, encode_frame
from penstock.journal.inspect import cat
from penstock.store.blobs import open_blobs
from penstock.store.schema_drift import drift_groups
from penstock.store.sql import open_database
from tests.system.program import penstock
from tests.system.starter import Up, running

Pair = tuple[Exchange, Observation]
QUESTIONS = 20_000
WORSE = 2_000
REPLAYS = 10
SWAPS = 100
WITHIN = 500
CLIENTS = 16
_BATCH = 500


def ask(up: Up, count: int, seed: int) -> None:
    """Ask so many questions, and tell what the evaluator says of each answer."""
    shop, questions, lock = load_shop(), conversations(open_corpus(), seed=seed), threading.Lock()
    left = iter(range(count))

    def client() -> None:
        headers = {"authorization": f"Bearer {up.secret('demo.key')}"}
        with httpx.Client(base_url=up.gateway, headers=headers, timeout=120) as http:
            while True:
                with lock:
                    number = next(left, None)
                    if number is None:
                        return
                    conversation = next(questions)
                turns = conversation.messages()[:-1]
                body = {"model": "support-bot", "messages": turns, "max_tokens": 80, "temperature": 0}
                reply = http.post("/v1/chat/completions", json=body)
                reply.raise_for_status()
                right = _right(conversation.turns[-1], turns, reply.json()["choices"][0]["message"]["content"], shop)
                word = {
                    "id": f"{seed}-{number}",
                    "request_id": reply.headers["x-penstock-request-id"],
                    "success": right,
                }
                http.post("/v1/feedback", json=word).raise_for_status()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _right(turn: Turn, turns: list[dict[str, str]], answer: str, shop: Any) -> bool:
    said = " ".join(one["content"] for one in turns if one["role"] != "system")
    facts = {name: value for name, value in turn.slots.items() if value in said}
    return score(answer, turn.intent, facts, shop, said).right


def recorded(up: Up, version: str) -> list[Pair]:
    """What the gateway journalled of a version, in the order of its answers."""
    words: dict[str, Observation] = {}
    exchanges: list[Exchange] = []
    for _, _, record in cat(up.data / "journal"):
        if isinstance(record, Observation):
            words[record.request] = record
        elif isinstance(record, Exchange) and record.version == version and record.outcome == "ok":
            exchanges.append(record)
    return [(one, words[one.id]) for one in sorted(exchanges, key=lambda one: one.at) if one.id in words]


async def replayed(pairs: list[Pair]) -> list[str]:
    """The alarms of a control plane that takes these in, and knows nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        database = await open_database(f"sqlite+aiosqlite:///{data / 'penstock.db'}")
        control = Control(
            settings=Settings(),
            data=data,
            database=database,
            blobs=open_blobs("", data / "blobs", database),
            service_token="bench",
            clock=time.time,
            entropy=bytes,
        )
        at = 64
        for start in range(0, len(pairs), _BATCH):
            body = b"".join(encode_frame(record) for pair in pairs[start : start + _BATCH] for record in pair)
            await ingest(control, "bench", Position(1, at), Position(1, at + len(body)), body)
            at += len(body)
        async with database.read() as connection:
            rows = (await connection.execute(select(drift_groups.c.record))).all()
        await database.close()
    return [alarm.words for row in rows for alarm in decode_group(row.record).alarms]


def delay(before: list[Pair], after: list[Pair], *, feedback: bool) -> int:
    """After how many requests of the second model the first alarm comes; more than there are, if none does."""
    watching = Watching(new_group(0.0))
    for number, (exchange, word) in enumerate([*before, *after]):
        for signal, value in observed(exchange):
            watching.feed(signal, value, exchange.at, number)
        for metric, numerator in told(word) if feedback else ():
            found = feedback_value(metric, numerator)
            if found is not None:
                watching.feed(*found, exchange.at, number)
        if number >= len(before) and watching.group.alarms:
            return number - len(before) + 1
    return len(after) + 1


def main() -> int:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", type=float, default=1.0, help="of the full size")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    questions, worse = (max(600, round(full * options.part)) for full in (QUESTIONS, WORSE))
    swaps = max(5, round(SWAPS * options.part))
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "penstock-data", "--workers", "2") as up,
    ):
        ask(up, questions, seed=1)
        penstock(up, "promote", "support-bot:v1.0.0", "--to", "production")
        ask(up, worse, seed=2)
        good, bad = recorded(up, "support-bot:v1.1.0"), recorded(up, "support-bot:v1.0.0")
    draw = random.Random(20)
    alarms = [alarm for _ in range(REPLAYS) for alarm in asyncio.run(replayed(draw.sample(good, len(good))))]
    found: dict[str, Any] = {
        "exchanges": len(good),
        "noticed": sum(one.noticed is not None for one, _ in good) / len(good),
        "scored": sum(one.quality is not None for one, _ in good) / len(good),
        "replays": REPLAYS,
        "false_alarms": alarms,
        "run_length": RUN_LENGTH,
    }
    met = len(alarms) <= 1
    for name, feedback in (("with_feedback", True), ("without_feedback", False)):
        delays = sorted(
            delay(draw.sample(good, min(len(good), 1500)), draw.sample(bad, len(bad)), feedback=feedback)
            for _ in range(swaps)
        )
        met = met and delays[-1] <= WITHIN
        found[name] = {
            "swaps": swaps,
            "median": statistics.median(delays),
            "p95": delays[int(0.95 * len(delays))],
            "most": delays[-1],
        }
    if options.json:
        print(msgspec.json.encode(found).decode())
    else:
        print(json.dumps(found, indent=2))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
