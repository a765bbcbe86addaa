"""The official client, unmodified, against the whole of it with the real model."""

import math
import time
from collections.abc import Iterator

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.system.starter import Up

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(240)]

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Where is my order 4471902?"}]
MODEL = "support-bot"


@pytest.fixture(scope="module")
def client(up: Up) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{up.gateway}/v1", api_key=up.secret("demo.key"), max_retries=0, timeout=60) as made:
        yield made


def test_the_promised_question_gets_a_sensible_answer(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=QUESTION)
    answer = reply.choices[0].message.content or ""
    assert "4471902" in answer
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.completion_tokens > 5


def test_a_stream_says_what_the_whole_reply_says(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    text, usage, finish, chunks = "", None, None, 0
    for chunk in stream:
        chunks += 1
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert text == whole.choices[0].message.content
    assert finish == "stop"
    assert usage == whole.usage
    assert chunks > 5


def test_usage_is_in_a_stream_only_if_asked_for(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
    chunks = list(stream)
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)


def test_stop_cuts_before_the_stop_string(client: openai.OpenAI) -> None:
    free = (
        client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0).choices[0].message.content or ""
    )
    word = free.split()[3]
    cut = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stop=[word]).choices[0]
    assert cut.message.content == free[: free.index(word)]
    assert cut.finish_reason == "stop"


def test_max_tokens_ends_with_length(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=QUESTION, max_completion_tokens=4)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 4


def test_the_same_seed_gives_the_same_text(client: openai.OpenAI) -> None:
    def said(seed: int) -> str:
        reply = client.chat.completions.create(
            model=MODEL, messages=QUESTION, temperature=1.8, top_p=1, seed=seed, max_tokens=40
        )
        return reply.choices[0].message.content or ""

    assert said(7) == said(7)
    assert len({said(seed) for seed in range(8)}) > 1


def test_n_gives_that_many_choices(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=QUESTION, n=3, temperature=1.5, seed=1)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert all(choice.message.content for choice in reply.choices)


def test_logprobs_are_those_of_the_tokens_said(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, logprobs=True).choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert "".join(token.token for token in choice.logprobs.content).strip() == (choice.message.content or "").strip()
    assert all(token.logprob <= 0 and math.isfinite(token.logprob) for token in choice.logprobs.content)


def test_completions_continue_a_prompt(client: openai.OpenAI) -> None:
    reply = client.completions.create(model=MODEL, prompt="You can follow order", max_tokens=5, temperature=0)
    assert reply.choices[0].text


def test_models_list_names_the_routes(client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]


def test_a_prompt_too_long_is_refused_with_the_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "lamp " * 5000}])
    assert refused.value.code == "context_length_exceeded"
    assert any(character.isdigit() for character in refused.value.message)


def test_errors_have_their_types(client: openai.OpenAI, up: Up) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="pk-wrong").chat.completions.create(model=MODEL, messages=QUESTION)
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="no-such-model", messages=QUESTION)
    assert "no-such-model" in unknown.value.message
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=9)
    assert bad.value.param == "temperature"


def test_a_rate_limit_is_told_as_such(up: Up) -> None:
    admin = {"authorization": f"Bearer {up.secret('admin.key')}"}
    with httpx.Client(base_url=up.control, headers=admin, timeout=30) as control:
        control.post(
            "/api/v1/tenants", json={"name": "slow", "spec": {"limits": {"requests_per_minute": 2}}}
        ).raise_for_status()
        made = control.post("/api/v1/keys", json={"name": "slow-key", "tenant": "slow"})
        made.raise_for_status()
        secret = made.json()["key"]
    slow = openai.OpenAI(base_url=f"{up.gateway}/v1", api_key=secret, max_retries=0)
    deadline = time.monotonic() + 20
    with slow, pytest.raises(openai.RateLimitError) as limited:
        while True:  # until the gateways know the key
            try:
                slow.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=2)
                break
            except openai.AuthenticationError:
                assert time.monotonic() < deadline
        for _ in range(3):
            slow.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=2)
    assert int(limited.value.response.headers["retry-after"]) >= 1
