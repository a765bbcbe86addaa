"""Cost levers over the whole of it, with both starter models: what is applied is what is done, recorded and paid."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from bench.cost_levers import applied, held_out, stack
from penstock.core.exchange import Exchange
from penstock.journal.inspect import cat
from tests.system.starter import Up
from tests.system.waiting import until

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def levers(up: Up) -> Iterator[Up]:
    """Routes `small`, `large` and `cascade` over both versions, gone at the end."""
    documents = stack(("min_mean_logprob", -0.02), name="cascade")
    documents[-1]["spec"] |= {"max_tokens": 40, "trim": {"budget_tokens": 120}}
    applied(up, documents)
    yield up
    for one in reversed(documents):
        request = urllib.request.Request(
            f"{up.control}/api/v1/{one['kind'].lower()}s/{one['name']}",
            headers={"authorization": f"Bearer {up.secret('admin.key')}"},
            method="DELETE",
        )
        urllib.request.urlopen(request, timeout=30).close()


def recorded(up: Up, names: set[str]) -> list[Exchange]:
    return [one for _, _, one in cat(up.data / "journal") if isinstance(one, Exchange) and one.id in names]


def test_a_cascade_answers_the_same_whole_and_as_a_stream_and_both_models_are_paid(levers: Up) -> None:
    names: set[str] = set()
    versions: set[str] = set()
    with openai.OpenAI(base_url=f"{levers.gateway}/v1", api_key=levers.secret("demo.key"), timeout=60) as client:
        for case in held_out(16):
            asked: Any = {"model": "cascade", "messages": case.messages, "temperature": 0}
            whole = client.chat.completions.with_raw_response.create(**asked)
            names.add(whole.headers["x-penstock-request-id"])
            versions.add(whole.headers["x-penstock-version"])
            choice = whole.parse().choices[0]
            assert choice.logprobs is None
            pieces = list(client.chat.completions.create(**asked, stream=True))
            assert "".join(one.choices[0].delta.content or "" for one in pieces) == choice.message.content
            assert not any(one.choices[0].logprobs for one in pieces)
    assert versions == {"support-bot:v1.0.0", "support-bot:v1.1.0"}
    until(lambda: True if len(recorded(levers, names)) == 16 else None, 30)
    for one in recorded(levers, names):
        dear = one.version == "support-bot:v1.1.0"
        assert one.escalated == dear
        assert (one.tried.completion > 0) == dear
        first = one.tried if dear else one.usage
        own = (one.usage.prompt - one.tried.prompt, one.usage.completion - one.tried.completion)
        expected = round((0.01 * first.prompt + 0.04 * first.completion) * 1000)
        if dear:
            expected += round((0.05 * own[0] + 0.20 * own[1]) * 1000)
        assert one.cost_nanousd == expected


def test_a_long_chat_is_trimmed_and_the_answer_limited(levers: Up) -> None:
    turns = [
        {"role": "user", "content": "I want to know all about garden chairs."},
        {"role": "assistant", "content": "Which?"},
    ]
    messages: Any = [*turns * 12, {"role": "user", "content": "Where is my order 4471902?"}]
    with openai.OpenAI(base_url=f"{levers.gateway}/v1", api_key=levers.secret("demo.key"), timeout=60) as client:
        answer = client.chat.completions.with_raw_response.create(model="cascade", messages=messages, max_tokens=900)
        assert int(answer.headers["x-penstock-trimmed"]) >= 8
        usage = answer.parse().usage
        assert usage is not None
        assert usage.prompt_tokens < 200
        assert usage.completion_tokens <= 40
    shown = urllib.request.Request(
        f"{levers.control}/api/v1/requests/{answer.headers['x-penstock-request-id']}",
        headers={"authorization": f"Bearer {levers.secret('admin.key')}"},
    )

    def told() -> int | None:
        try:
            with urllib.request.urlopen(shown, timeout=30) as reply:
                return int(json.load(reply)["request"]["trimmed"])
        except OSError:  # not taken in yet
            return None

    assert until(told, 60) == int(answer.headers["x-penstock-trimmed"])
