"""The official client, unmodified, against the real engine."""

import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.engine.conftest import Running

pytestmark = pytest.mark.engine

HI: Any = [{"role": "user", "content": "where is the order?"}]


@pytest.fixture(scope="module")
def client(engine: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=engine.url + "/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "tiny", "messages": HI, "max_tokens": 24, "seed": 3, **fields})


def text(client: openai.OpenAI, **fields: Any) -> str:
    return str(ask(client, **fields).choices[0].message.content)


def test_chat(client: openai.OpenAI) -> None:
    answer = ask(client)
    assert answer.object == "chat.completion"
    assert answer.model == "tiny"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 24
    # <bos> <user> w h e-r-e ... is counted by the tokenizer, and only once
    prompt = "<|bos|><|user|>where is the order?<|end|><|assistant|>"
    raw = client.completions.create(model="tiny", prompt=prompt, max_tokens=1)
    assert raw.usage is not None
    assert answer.usage.prompt_tokens == raw.usage.prompt_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason] == ["length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len({c.id for c in chunks}) == 1
    assert all(c.usage is None for c in chunks[:-1])
    assert all(c.usage is None for c in ask(client, stream=True))


def test_the_same_seed_gives_the_same_text_and_another_does_not(client: openai.OpenAI) -> None:
    assert text(client, seed=7) == text(client, seed=7)
    assert text(client, seed=7) != text(client, seed=8)
    assert text(client, seed=openai.omit) != text(client, seed=openai.omit)
    assert text(client, seed=-7) == text(client, seed=-7)


def test_temperature_nought_is_greedy(client: openai.OpenAI) -> None:
    greedy = {text(client, temperature=0, seed=seed) for seed in range(3)}
    assert len(greedy) == 1
    assert text(client, extra_body={"top_k": 1}) in greedy
    assert text(client, top_p=0) in greedy
    assert text(client, temperature=1.5) not in greedy


@pytest.mark.parametrize(
    "extreme", [{"top_p": 1e-300}, {"min_p": 1}, {"top_k": 2**63 - 1}, {"repetition_penalty": 1e-6}]
)
def test_extreme_values_reach_the_pipeline_as_it_takes_them(client: openai.OpenAI, extreme: dict[str, float]) -> None:
    greedy = text(client, temperature=0)
    answer = text(client, temperature=1, extra_body=extreme)
    if "top_p" in extreme or "min_p" in extreme:
        assert answer == greedy


def test_stop_strings_are_cut_off_whole_and_streamed(client: openai.OpenAI) -> None:
    full = text(client, temperature=0, max_tokens=60)
    stop = full[20:24]
    before = full[: full.index(stop)]
    answer = ask(client, temperature=0, max_tokens=60, stop=["never there", stop])
    assert answer.choices[0].message.content == before
    assert answer.choices[0].finish_reason == "stop"
    assert 0 < answer.usage.completion_tokens < 60
    chunks = list(ask(client, temperature=0, max_tokens=60, stop=stop, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == before
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_n_choices_have_seeds_of_their_own(client: openai.OpenAI) -> None:
    answer = ask(client, n=3, seed=40)
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert texts == [text(client, seed=40 + i) for i in range(3)]
    assert answer.usage.completion_tokens == 72
    assert answer.usage.prompt_tokens == ask(client).usage.prompt_tokens
    streamed = ["", "", ""]
    for chunk in ask(client, n=3, seed=40, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_log_probabilities_are_those_of_the_chosen_tokens(client: openai.OpenAI) -> None:
    answer = ask(client, temperature=0, logprobs=True, max_tokens=6)
    content = answer.choices[0].logprobs.content
    assert b"".join(bytes(t.bytes) for t in content).decode(errors="replace") == answer.choices[0].message.content
    assert all(-math.log(275) < t.logprob < 0 and t.top_logprobs == [] for t in content)  # greedy: above the mean
    hot = ask(client, logprobs=True, temperature=0.01, max_tokens=6).choices[0].logprobs.content
    assert [t.logprob for t in hot] == pytest.approx([t.logprob for t in content])  # of the model, not of the sampler
    chunks = [c.choices[0] for c in ask(client, temperature=0, logprobs=True, max_tokens=6, stream=True)]
    assert [t.logprob for c in chunks if c.logprobs for t in c.logprobs.content] == pytest.approx(
        [t.logprob for t in content]
    )
    assert ask(client).choices[0].logprobs is None


def test_penalties_make_repetition_rarer(client: openai.OpenAI) -> None:
    def distinct(**fields: Any) -> int:
        answer = ask(client, temperature=0, max_tokens=150, logprobs=True, extra_body={"ignore_eos": True}, **fields)
        return len({bytes(t.bytes) for t in answer.choices[0].logprobs.content})

    plain = distinct()
    assert distinct(presence_penalty=2) > plain
    assert distinct(frequency_penalty=2) > plain
    assert distinct(presence_penalty=-2) < plain


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt=["the order", "hello"], n=2, seed=5, max_tokens=5, logprobs=0
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 20
    alone = client.completions.create(model="tiny", prompt="hello", n=2, seed=5, max_tokens=5)
    assert [choice.text for choice in alone.choices] == [choice.text for choice in answer.choices[2:]]
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.text_offset == sorted(told.text_offset or [])
    assert len(told.token_logprobs or []) == 5
    tokens = client.completions.create(model="tiny", prompt=[256, 104, 101], seed=5, max_tokens=5)
    texts = client.completions.create(model="tiny", prompt="he", seed=5, max_tokens=5)
    assert tokens.choices[0].text == texts.choices[0].text
    streamed = client.completions.create(model="tiny", prompt="he", seed=5, max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == texts.choices[0].text
    assert client.completions.create(model="tiny", prompt="he", seed=5).usage.completion_tokens == 16  # type: ignore[union-attr]


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_errors_are_typed_and_name_the_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client, model="other")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as bad:
        ask(client, temperature=9)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as tools:
        ask(client, tools=[{"type": "function", "function": {"name": "f"}}])
    assert (tools.value.code, tools.value.param) == ("unsupported_parameter", "tools")
    with pytest.raises(openai.BadRequestError) as role:
        ask(client, messages=[{"role": "tool", "content": "x", "tool_call_id": "1"}])
    assert "Only system, user and assistant can speak." in role.value.message


def test_a_prompt_too_long_for_the_context_is_refused_with_the_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, messages=[{"role": "user", "content": "x" * 300}])
    assert caught.value.code == "context_length_exceeded"
    assert "256" in caught.value.message
    assert "304" in caught.value.message
    # what fits is answered for as long as there is room
    answer = ask(
        client, messages=[{"role": "user", "content": "x" * 240}], max_tokens=500, extra_body={"ignore_eos": True}
    )
    assert answer.usage.total_tokens == 256
    assert answer.choices[0].finish_reason == "length"


def test_tokens_that_do_not_exist_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt=[256, 275])
    assert "275" in caught.value.message
