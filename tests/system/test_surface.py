"""Every way in leads to the same answer: HTTP, the Responses API, gRPC; over the whole of it with the real model."""

import math
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest

from penstock.core.exchange import Exchange
from penstock.journal.inspect import cat
from penstock.supervisor.records import Records
from tests.gateway.grpc_client import credentials, generated, question, texts
from tests.system.starter import ROOT, Up
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(240)]

ASKED = "Where is my order 4471902?"
MODEL = "support-bot"
EMBEDDER = "support-embedder"


@pytest.fixture(scope="module")
def client(up: Up) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{up.gateway}/v1", api_key=up.secret("demo.key"), max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def stub(up: Up) -> Iterator[Any]:
    with grpc.insecure_channel(up.grpc) as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        yield generated()[1].GRPCInferenceServiceStub(channel)


def records(data: Path, name: str) -> list[Exchange]:
    """What the journals of all workers hold of one request."""
    return [record for _, _, record in cat(data / "journal") if isinstance(record, Exchange) and record.id == name]


def test_all_ways_give_one_answer(up: Up, client: openai.OpenAI, stub: Any) -> None:
    chat = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": ASKED}], temperature=0, max_tokens=60
    )
    told = chat.choices[0].message.content
    response = client.responses.create(model=MODEL, input=ASKED, temperature=0, max_output_tokens=60)
    assert response.output_text == told
    with client.responses.stream(model=MODEL, input=ASKED, temperature=0, max_output_tokens=60) as stream:
        assert stream.get_final_response().output_text == told
    metadata = credentials(up.secret("demo.key"))
    answer, call = stub.ModelInfer.with_call(
        question(ASKED, model=MODEL, temperature=0.0, max_tokens=60), metadata=metadata, timeout=60
    )
    assert texts(answer) == [told]
    assert chat.usage is not None
    assert answer.parameters["completion_tokens"].int64_param == chat.usage.completion_tokens
    pieces = stub.ModelStreamInfer(
        iter([question(ASKED, model=MODEL, temperature=0.0, max_tokens=60)]), metadata=metadata, timeout=60
    )
    said = [texts(piece.infer_response)[0] for piece in pieces if piece.infer_response.outputs]
    assert "".join(said) == told
    assert len(said) > 5
    name = dict(call.trailing_metadata())["x-penstock-request-id"]
    (record,) = records(up.data, name)
    assert (record.tenant, record.outcome, record.route) == ("demo", "ok", MODEL)
    assert record.usage.completion == chat.usage.completion_tokens


def test_vectors_of_what_means_the_same_are_close(client: openai.OpenAI) -> None:
    given = ["Where is my parcel?", "Where is my package?", "How do I change my password?"]
    reply = client.embeddings.create(model=EMBEDDER, input=given)
    one, same, other = (item.embedding for item in reply.data)
    assert reply.usage.prompt_tokens > 0
    assert cosine(one, same) > cosine(one, other)
    assert client.embeddings.create(model=EMBEDDER, input=given[0]).data[0].embedding == pytest.approx(one, abs=1e-3)


def cosine(left: list[float], right: list[float]) -> float:
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    return dot / math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))


def test_what_the_engine_cannot_do_is_told_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(
            model=MODEL,
            input=ASKED,
            text={"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}},
        )
    assert refused.value.param == "text.format"


def test_the_pages_example_works(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    generated()
    page = (ROOT / "docs" / "reference" / "grpc.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = code.replace("127.0.0.1:8082", up.grpc).replace("penstock-data/demo.key", str(up.data / "demo.key"))
    exec(compile(code, "grpc.md", "exec"), {})
    assert "4471902" in capsys.readouterr().out


def test_a_grpc_process_that_is_killed_is_back(up: Up, stub: Any) -> None:
    pb, _ = generated()
    store = Records(up.data / "run")
    before = store.read("grpc")
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    until(lambda: True if (now := store.read("grpc")) and now.pid not in {0, before.pid} else None, 60)
    ready = stub.ModelReady(
        pb.ModelReadyRequest(name=MODEL), metadata=credentials(up.secret("demo.key")), wait_for_ready=True, timeout=60
    )
    assert ready.ready
