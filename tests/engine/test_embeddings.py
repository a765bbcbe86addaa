"""`/v1/embeddings` of the engine, with the embedder that is shipped: OpenAI's shape, its bounds, and the same vector each time."""

import asyncio
import base64
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from penstock.core.errors import Damaged
from penstock.engine.embedder import BATCH_TOKENS, is_embedder, read_pooling
from penstock.engine.embeddings import MOST_INPUTS
from penstock.wire.phases import HEADER, phases_of
from tests.engine.conftest import DEADLINE_S, Running, running_engine

pytestmark = pytest.mark.engine

FOLDER = Path("examples/support_bot/models/support-embedder-v1.0.0/openvino-int8")
WIDTH = 192
TEXTS = ["Where is my order 4711?", "hi, where's my package 4711 please", "How do I reset my password?"]


@pytest.fixture(scope="module")
def embedder() -> Iterator[Running]:
    with running_engine(FOLDER, "support-embedder", max_waiting=4) as running:
        yield running


def ask(engine: Running, **fields: Any) -> httpx.Response:
    return httpx.post(engine.url + "/v1/embeddings", json={"model": "support-embedder", **fields}, timeout=DEADLINE_S)


def vectors(answer: httpx.Response) -> list[list[float]]:
    assert answer.status_code == 200, answer.text
    rows = answer.json()["data"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    return [row["embedding"] for row in rows]


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_alike_questions_lie_close_together(embedder: Running) -> None:
    answer = ask(embedder, input=TEXTS)
    order, package, password = vectors(answer)
    assert {len(row) for row in (order, package, password)} == {WIDTH}
    assert cosine(order, order) == pytest.approx(1.0, abs=1e-5)
    assert cosine(order, package) > 0.8 > 0.5 > cosine(order, password)
    body = answer.json()
    assert (body["object"], body["model"]) == ("list", "support-embedder")
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 10


def test_a_gateway_is_told_how_long_its_phases_took(embedder: Running) -> None:
    name = HEADER.decode()
    body = {"model": "support-embedder", "input": TEXTS}
    begun = time.monotonic_ns()
    answer = httpx.post(embedder.url + "/v1/embeddings", json=body, headers={name: "tell"}, timeout=DEADLINE_S)
    took = time.monotonic_ns() - begun
    told = phases_of(answer.headers[name].encode())
    assert told is not None
    assert told.prefill > 0 == told.decode
    assert sum(length for _, length in told.lengths()) <= took
    assert name not in ask(embedder, input=TEXTS).headers


def test_texts_lists_tokens_and_both_encodings_are_the_same_vectors(embedder: Running) -> None:
    alone = [vectors(ask(embedder, input=text))[0] for text in TEXTS]
    together = vectors(ask(embedder, input=TEXTS))
    packed = ask(embedder, input=TEXTS, encoding_format="base64").json()["data"]
    for one, other, row in zip(alone, together, packed, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
        assert list(struct.unpack(f"<{WIDTH}f", base64.b64decode(row["embedding"]))) == pytest.approx(other, abs=1e-5)
    tokens = vectors(ask(embedder, input=[5, 6, 7]))
    assert vectors(ask(embedder, input=[[5, 6, 7], [8]]))[0] == pytest.approx(tokens[0], abs=1e-5)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": ""}, "input", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": ["a", ""]}, "input", "invalid_value"),
        ({"input": ["a", [1]]}, "input", "invalid_value"),
        ({"input": [[1, 999999]]}, "input", "invalid_value"),
        ({"input": [-1]}, "input", "invalid_value"),
        ({"input": ["a"] * (MOST_INPUTS + 1)}, "input", "invalid_value"),
        ({"input": "word " * 400}, "input", "context_length_exceeded"),
        ({}, "input", "missing_required_parameter"),
        ({"input": "a", "dimensions": 64}, "dimensions", "unsupported_parameter"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"input": "a", "colour": "red"}, "colour", "unknown_parameter"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    embedder: Running, fields: dict[str, Any], param: str, code: str
) -> None:
    answer = ask(embedder, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert answer.json()["error"]["code"] == code


def test_dimensions_that_are_its_own_are_taken(embedder: Running) -> None:
    assert len(vectors(ask(embedder, input="a", dimensions=WIDTH, user="somebody"))[0]) == WIDTH


def test_an_embedder_writes_no_texts_and_a_writer_embeds_none(embedder: Running, engine: Running) -> None:
    messages = [{"role": "user", "content": "hello"}]
    chat = httpx.post(embedder.url + "/v1/chat/completions", json={"model": "support-embedder", "messages": messages})
    vector = httpx.post(engine.url + "/v1/embeddings", json={"model": "tiny", "input": "hello"})
    for answer in (chat, vector):
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_operation")
    assert httpx.get(embedder.url + "/v1/embeddings").status_code == 405
    wrong = httpx.post(embedder.url + "/v1/embeddings", json={"model": "other", "input": "hello"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (404, "model_not_found")


async def test_the_official_client_and_many_at_once(embedder: Running) -> None:
    client = openai.AsyncOpenAI(base_url=embedder.url + "/v1", api_key="none", max_retries=0, timeout=DEADLINE_S)
    alone = await client.embeddings.create(model="support-embedder", input=TEXTS[0])
    whole = await client.embeddings.create(model="support-embedder", input=[TEXTS[0] * 4] * (BATCH_TOKENS // 30 + 9))
    assert len({tuple(round(number, 4) for number in row.embedding) for row in whole.data}) == 1
    answers = await asyncio.gather(
        *(client.embeddings.create(model="support-embedder", input=TEXTS[0]) for _ in range(40)), return_exceptions=True
    )
    done = [answer for answer in answers if isinstance(answer, openai.types.CreateEmbeddingResponse)]
    refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    assert len(done) + len(refused) == len(answers) and done
    for answer in done:
        assert answer.data[0].embedding == pytest.approx(alone.data[0].embedding, abs=1e-5)
    await client.close()


def test_it_tells_its_model_its_health_and_what_it_counted(embedder: Running) -> None:
    model = httpx.get(embedder.url + "/v1/models").json()["data"][0]
    assert (model["id"], model["max_model_len"]) == ("support-embedder", 256)
    assert httpx.get(embedder.url + "/readyz").status_code == 200
    before = embedder.metric("vllm:prompt_tokens_total")
    used = ask(embedder, input=TEXTS).json()["usage"]["prompt_tokens"]
    assert embedder.metric("vllm:prompt_tokens_total") == before + used
    assert embedder.metric("vllm:request_success_total", finished_reason="stop") >= 3
    assert embedder.metric("vllm:num_requests_waiting") == 0


def test_a_folder_says_how_vectors_are_made(tmp_path: Path) -> None:
    assert is_embedder(FOLDER) and not is_embedder(FOLDER.parent)
    assert (read_pooling(FOLDER).mode, read_pooling(FOLDER).normalize) == ("mean", True)
    for modules in ("", "[]x", '[{"type":"a.Dense","path":"1"}]', '[{"type":"a.Pooling","path":"1"}]'):
        (tmp_path / "modules.json").write_text(modules)
        with pytest.raises(Damaged):
            read_pooling(tmp_path)
