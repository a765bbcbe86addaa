import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.core.settings import EngineSettings
from penstock.engine.asks import _NEUTRAL, _REFUSED, Ask, ChatBody, CompletionBody, read_chat, read_completion


def chat(**fields: Any) -> Ask:
    return read_chat(json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode())


def completion(**fields: Any) -> Ask:
    return read_completion(json.dumps({"model": "m", "prompt": "hi", **fields}).encode())


def refusal(read: Any, **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    return caught.value


def test_fields_are_taken() -> None:
    ask = chat(
        temperature=0.5, top_p=0.9, top_k=5, presence_penalty=1, frequency_penalty=-1, seed=-3, n=2, stop=["a", "b"],
        max_completion_tokens=7, stream=True, stream_options={"include_usage": True}, logprobs=True,
    )  # fmt: skip
    assert ask == Ask(
        model="m", messages=[{"role": "user", "content": "hi"}], temperature=0.5, top_p=0.9, top_k=5, presence_penalty=1.0,
        frequency_penalty=-1.0, seed=-3, n=2, stop=("a", "b"), max_tokens=7, stream=True, include_usage=True, logprobs=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("tool_choice", "required"),
        ("functions", [{}]),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {}}),
        ("logit_bias", {"1": 2}),
        ("top_logprobs", 2),
        ("audio", {}),
        ("modalities", ["text", "audio"]),
        ("prediction", {"type": "content"}),
        ("reasoning_effort", "low"),
        ("web_search_options", {}),
        ("verbosity", "low"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(field: str, value: Any) -> None:
    error = refusal(chat, **{field: value})
    assert (error.status, error.code, error.param) == (400, "unsupported_parameter", field)
    assert field in error.message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", []), ("tool_choice", "none"), ("response_format", {"type": "text"}), ("logit_bias", {}), ("logit_bias", None),
        ("top_logprobs", 0), ("user", "u"), ("metadata", {"a": "b"}), ("store", True), ("service_tier", "auto"),
        ("temperature", None), ("stop", None), ("parallel_tool_calls", True), ("modalities", ["text"]),
    ],
)  # fmt: skip
def test_what_asks_for_nothing_is_taken(field: str, value: Any) -> None:
    assert chat(**{field: value}) == chat()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"top_k": 2**64}, "top_k"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": [1]}, "stop[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"seed": 1.5}, "seed"),
        ({"model": 3}, "model"),
        ({"model": None}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_bad_fields_are_named(fields: dict[str, Any], param: str) -> None:
    error = refusal(chat, **fields)
    assert (error.status, error.param) == (400, param)


def test_content_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert chat(messages=[{"role": "user", "content": parts}]).messages == [{"role": "user", "content": "ab"}]


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_prompts_come_in_four_forms(prompt: Any, prompts: Any) -> None:
    assert completion(prompt=prompt).prompts == prompts


@pytest.mark.parametrize("prompt", ["", [], [""], [[]], [1, "a"], ["a", 1], [[1], "a"], {}, 4, [1.5], None])
def test_other_prompts_are_refused(prompt: Any) -> None:
    assert refusal(completion, prompt=prompt).param == "prompt"


def test_completions_have_their_own_fields() -> None:
    assert completion().max_tokens == 16
    assert completion(logprobs=0).logprobs
    assert not completion().logprobs
    assert refusal(completion, logprobs=2).param == "logprobs"
    assert refusal(completion, echo=True).param == "echo"
    assert refusal(completion, suffix="x").param == "suffix"
    assert refusal(completion, best_of=2).param == "best_of"
    assert refusal(completion, prompt=["a"] * 100, n=2).param == "prompt"


@given(st.binary(max_size=60))
def test_no_body_breaks_it(body: bytes) -> None:
    for read in (read_chat, read_completion):
        with pytest.raises(BadRequest):
            read(body)


def test_a_body_nested_too_deep_is_refused() -> None:
    with pytest.raises(BadRequest):
        read_chat(b"[" * 100_000)


def test_every_field_is_documented() -> None:
    documented = Path("docs/reference/engine.md").read_text()
    fields = {*ChatBody.__struct_fields__, *CompletionBody.__struct_fields__, *_REFUSED, *_NEUTRAL}
    assert [field for field in sorted(fields) if f"`{field}`" not in documented] == []


def test_every_setting_is_documented() -> None:
    documented = Path("docs/reference/engine.md").read_text()
    assert [field for field in EngineSettings.__struct_fields__ if f"`{field}`" not in documented] == []
