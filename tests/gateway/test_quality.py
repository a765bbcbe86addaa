"""What engines tell of their answers' quality: asked of a share, kept in the record, counted, never shown to clients."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.core.snapshot import QualityPolicy
from penstock.engine.folder import read_folder
from penstock.engine.signal_stack import own_signal_stack
from penstock.engine.template import ChatTemplate
from penstock.engine.text import Tokenizer
from tests.engine.conftest import Running, running_engine
from tests.gateway.house import KEY, House, running

STARTER = Path("examples/support_bot/models/support-bot-v1.1.0/openvino-int8")
REFUSALS = ("I can only help with questions about Larkfield",)
QUESTIONS = (
    "Where is my order 4471900?",
    "please cancel order 88120",
    "How much is delivery?",
    "hi",
    "the lamp from order 5566771 came broken, what now",
    "how do I cancel my gym membership?",
    "my discount code does not work",
    "I want to talk to a person",
    "qwz plim the ostrich ate seven of my parcels while singing",
    "can I get an invoice for 7781234",
)
OFF_TOPIC = 5


@pytest.fixture(scope="module")
def starter() -> Iterator[Running]:
    with running_engine(STARTER, model="support-bot", kv_cache_mb=64) as engine:
        yield engine


def looked_at(share: float = 1.0, refusals: tuple[str, ...] = REFUSALS) -> dict[str, Any]:
    return {
        "dialect": "penstock",
        "model": "support-bot",
        "quality": QualityPolicy(share=share, refusals=refusals),
    }


async def chat(house: House, question: str, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as client:
        body = {"model": "mock", "messages": [{"role": "user", "content": question}], "max_tokens": 60, **more}
        return await client.post(
            f"{house.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"}
        )


def said(answer: httpx.Response) -> str:
    """The text of a whole answer, or of a stream."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return str(answer.json()["choices"][0]["message"]["content"])
    events = [line.removeprefix("data: ") for line in answer.text.split("\n") if line.startswith("data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


class Offline:
    """The same weights, asked directly: the whole of prompt and answer in one pass, without the pipeline that serves."""

    def __init__(self) -> None:
        import openvino as ov

        core = ov.Core()
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        with own_signal_stack():
            self._request = core.compile_model(STARTER / "openvino_model.xml", "CPU", hints).create_infer_request()
        folder = read_folder(STARTER)
        self._tokenizer = Tokenizer(STARTER)
        self._template = ChatTemplate(folder.template or self._tokenizer.template or "", folder.special)
        self._end = folder.stop_ids[0]

    def logprobs(self, question: str, answer: str, *, ended: bool) -> list[float]:
        """Of the answer's tokens, the end included if it came to that."""
        prompt = self._tokenizer.encode(self._template.render([{"role": "user", "content": question}]), special=False)
        tokens = self._tokenizer.encode(answer, special=False) + ([self._end] if ended else [])
        ids = np.array([prompt + tokens], np.int64)
        self._request.reset_state()
        found = self._request.infer(
            {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "position_ids": np.arange(ids.shape[1])[None],
                "beam_idx": np.zeros(1, np.int32),
            }
        )
        logits = next(iter(found.values()))[0].astype(np.float64)
        rows = logits[len(prompt) - 1 : -1]
        shifted = rows - rows.max(axis=1, keepdims=True)
        chosen = shifted[np.arange(len(tokens)), tokens]
        return list(chosen - np.log(np.exp(shifted).sum(axis=1)))


def sums(text: str) -> dict[str, float]:
    """The sum of each sample name."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "le" not in sample.labels:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


@pytest.mark.engine
async def test_perplexity_is_the_one_computed_off_line(starter: Running, tmp_path: Path) -> None:
    async with running(tmp_path, replicas=0, others=(starter.url,), pool=looked_at()) as house:
        answers = [
            await chat(house, question, stream=number % 2 == 0, temperature=number % 3 * 0.7, seed=number)
            for number, question in enumerate(QUESTIONS)
        ]
        exchanges = {exchange.id: exchange for exchange in house.exchanges()}
        metrics = sums((await asyncio.to_thread(httpx.get, f"{house.url}/metrics")).text)
    offline = Offline()
    nats, tokens = 0.0, 0
    for number, answer in enumerate(answers):
        assert answer.status_code == 200
        assert "quality" not in answer.text and "x-penstock-quality" not in answer.headers
        exchange = exchanges[answer.headers["x-penstock-request-id"]]
        scores = offline.logprobs(QUESTIONS[number], said(answer), ended=exchange.finish == "stop")
        seen = exchange.quality
        assert seen is not None and seen.perplexity is not None
        assert len(scores) == seen.scored == exchange.usage.completion
        assert seen.perplexity == pytest.approx(math.exp(-sum(scores) / len(scores)), rel=0.02)
        assert seen.refused == (number == OFF_TOPIC)
        nats, tokens = nats - sum(scores), tokens + len(scores)
    told = math.exp(metrics["penstock_scored_nats_total"] / metrics["penstock_scored_tokens_total"])
    assert told == pytest.approx(math.exp(nats / tokens), rel=0.02)
    assert told > 1.01
    assert metrics["penstock_perplexity_count"] == metrics["penstock_answers_examined_total"] == len(QUESTIONS)


@pytest.mark.engine
async def test_a_share_of_requests_is_looked_at(starter: Running, tmp_path: Path) -> None:
    async with running(tmp_path, replicas=0, others=(starter.url,), pool=looked_at(0.5)) as house:
        house.worker.gateway.notice_at = math.inf  # nobody looks at any for another reason
        for drawn in (0.7, 0.3):
            house.worker.gateway.draw = partial(float, drawn)
            assert (await chat(house, "hi", max_tokens=4)).status_code == 200
        assert [exchange.quality is not None for exchange in house.exchanges()] == [False, True]


@pytest.mark.engine
async def test_a_client_that_asks_for_the_usage_sees_no_more_than_that(starter: Running, tmp_path: Path) -> None:
    wish = {"stream": True, "stream_options": {"include_usage": True}}
    async with running(tmp_path, replicas=0, others=(starter.url,), pool=looked_at()) as house:
        answer = await chat(house, "hi", **wish)
        assert '"usage":{' in answer.text
        assert ":quality" not in answer.text
        assert house.exchanges()[0].quality is not None
    async with running(
        tmp_path / "resume", replicas=0, others=(starter.url,), pool=looked_at(), route={"resume": True}
    ) as house:
        assert said(await chat(house, "hi", **wish)) == said(answer)
        assert house.exchanges()[0].quality is not None


async def test_other_engines_are_not_asked(tmp_path: Path) -> None:
    pool = {"quality": QualityPolicy(share=1.0)}
    async with running(tmp_path, pool=pool) as house:
        assert (await chat(house, "hello there")).status_code == 200
        assert (await chat(house, "hello there", stream=True)).status_code == 200
        assert all(b"x-penstock-quality" not in head for head in house.mock.heads)
        assert [exchange.quality for exchange in house.exchanges()] == [None, None]
