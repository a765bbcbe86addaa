"""The semantic cache with the embedder that is shipped, measured through a gateway: what it hits, what it must not, what it takes."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from bench.line import Line
from examples.support_bot.embedder.evaluate import asked_otherwise, reworded
from examples.support_bot.embedder.lookalikes import lookalikes
from examples.support_bot.embedder.pairs import HELD_OUT_VOICE, Writer
from penstock.core.snapshot import CachePolicy, Pool, Replica, SemanticPolicy
from penstock.engine.embedder import Embedder
from penstock.engine.embeddings import EmbeddingService
from penstock.engine.folder import read_folder
from penstock.engine.text import Tokenizer
from penstock.net.server import Server
from tests.gateway.house import House, running
from tests.gateway.raw_client import post, read_reply

FOLDER = Path(__file__).parents[1] / "examples/support_bot/models/support-embedder-v1.0.0/openvino-int8"
THRESHOLD = 0.85  # the card's


@asynccontextmanager
async def embedder() -> AsyncIterator[Pool]:
    """A pool with one engine that serves the embedder."""
    model = Embedder(FOLDER, threads=1, max_waiting=64)
    tokenizer = await asyncio.to_thread(Tokenizer, FOLDER)
    service = EmbeddingService(model, read_folder(FOLDER), tokenizer, name="support-embedder", strict=True)
    server = Server(service.face.handle)
    await server.start()
    await model.start()
    try:
        url = f"http://127.0.0.1:{server.port}"
        yield Pool(name="vectors", replicas=(Replica(id="v0", url=url),), model="support-embedder")
    finally:
        await server.drain(0.1)
        await model.stop()


class Asker:
    """One client connection, and how long each reply took by what the cache said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.took: dict[str, list[float]] = {}

    async def ask(self, text: str, context: str) -> str:
        """What the cache said to `text` under the system prompt `context`."""
        messages = [{"role": "system", "content": context}, {"role": "user", "content": text}]
        body = msgspec.json.encode({"model": "mock", "temperature": 0, "messages": messages})
        began = time.perf_counter()
        self._writer.write(post("/v1/chat/completions", body))
        got = await read_reply(self._reader)
        took = time.perf_counter() - began
        if got.status != 200:
            raise AssertionError(got.body.decode())
        said = got.headers[b"x-penstock-cache"].decode()
        self.took.setdefault(said, []).append(took)
        return said

    async def hits(self, pairs: Sequence[tuple[str, str]], name: str) -> int:
        """How many second texts get the first one's answer; each pair is alone in its context."""
        found = 0
        for at, (one, other) in enumerate(pairs):
            await self.ask(one, f"{name} {at}")
            found += await self.ask(other, f"{name} {at}") in {"semantic", "hit"}
        return found

    def median_ms(self, said: str) -> float:
        """The median of what took as long as the cache said this."""
        return statistics.median(self.took.get(said) or [float("nan")]) * 1e3


@asynccontextmanager
async def house_of(data: Path, timeout_s: float = 5.0) -> AsyncIterator[tuple[House, Asker]]:
    """A gateway whose route has the semantic cache, and a client of it."""
    policy = SemanticPolicy(pool="vectors", threshold=THRESHOLD, timeout_s=timeout_s)
    async with (
        embedder() as pool,
        running(data, route={"cache": CachePolicy(mode="semantic", semantic=policy)}, pools=(pool,)) as house,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        try:
            yield house, Asker(reader, writer)
        finally:
            writer.close()


async def semantic_line(data: Path, *, pairs: int = 300, others: int = 1002, shelf: int = 500) -> Line:
    """Hits on paraphrases of a writer whom the embedder has never read, and none on pairs that differ in one fact."""
    writer = Writer(voices=(HELD_OUT_VOICE,), held_out=None)
    same = [(a.text, b.text) for a, b in reworded(writer, pairs, 31)]
    intent = [(a.text, b.text) for a, b in asked_otherwise(writer, pairs, 37)]
    different = [(pair.one, pair.other) for pair in lookalikes(writer, others, 41)]
    async with house_of(data) as (house, asker):
        reworded_hits = await asker.hits(same, "reworded")
        intent_hits = await asker.hits(intent, "intent")
        wrong = await asker.hits(different, "other")
        if wrong:
            raise AssertionError(f"{wrong} of {len(different)} pairs that differ in one fact shared an answer")
        for at in range(shelf):
            await asker.ask(f"Where is my order {at + 1000}?", "one shelf")
        asker.took.clear()
        for at in range(shelf // 2):
            await asker.ask(f"hello, where's my order {at + 1000} please", "one shelf")
        semantic = asker.median_ms("semantic")
        for at in range(shelf // 2):
            await asker.ask(f"hello, where's my order {at + 1000} please", f"empty shelf {at}")
        miss = asker.median_ms("miss")
        await house.settled()
    figures = {
        "reworded": reworded_hits / pairs,
        "intent": intent_hits / pairs,
        "wrong": wrong,
        "others": len(different),
    }
    return Line(
        "hits on paraphrases {reworded:.0%} (same sentence in other words), {intent:.0%} (same intent, other sentence); "
        "{wrong} of {others} pairs that differ in an entity, a number or a negation; "
        "a hit {hit:.1f} ms, a miss {miss:.1f} ms, the vector in both",
        {**figures, "hit": semantic, "miss": miss},
    )
