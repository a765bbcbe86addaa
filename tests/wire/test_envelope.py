"""Requests as the gateway reads them."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.wire.decoding import decode_chat, decode_completion
from penstock.wire.edit import canonical, prepend, replaced, with_system

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
UNKNOWN = st.dictionaries(st.text(min_size=1, max_size=8).map(lambda name: "x" + name), VALUES, max_size=4)
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@given(UNKNOWN, st.sampled_from([None, 1]), st.booleans())
def test_unknown_fields_pass_and_survive_every_edit(
    unknown: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    body = json.dumps({**CHAT, **unknown}, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    decode_chat(body)
    for edited in (prepend(body, b'"new":1'), replaced(body, {"new": 1})):
        assert json.loads(edited) == {"new": 1, **CHAT, **unknown}
    told = json.loads(with_system(body, "be kind"))
    assert told["messages"] == [{"role": "system", "content": "be kind"}, *CHAT["messages"]]
    assert {name: told[name] for name in unknown} == unknown


@given(st.binary(max_size=200))
def test_no_body_breaks_the_decoder(body: bytes) -> None:
    for decode in (decode_chat, decode_completion):
        with pytest.raises(BadRequest):
            decode(body)


@given(st.text(max_size=60))
def test_texts_come_out_as_they_went_in(text: str) -> None:
    if any(0xD800 <= ord(char) < 0xE000 for char in text):
        return
    messages = [
        {"role": "system", "content": text},
        {"role": "user", "content": [{"type": "text", "text": text}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    assert list(decode_chat(json.dumps({"model": "m", "messages": messages}).encode()).texts()) == [text, text]


def test_a_system_message_is_replaced() -> None:
    body = msgspec.json.encode({**CHAT, "messages": [{"role": "system", "content": "old"}, *CHAT["messages"]]})
    assert json.loads(with_system(body, "new"))["messages"] == [{"role": "system", "content": "new"}, *CHAT["messages"]]


def test_equal_questions_are_written_equally() -> None:
    one = b'{"b": [1, 2], "a": "x", "user": "u"}'
    two = b'{"a":"x","user":"v","b":[1, 2]}'
    assert canonical(one, frozenset({"user"})) == canonical(two, frozenset({"user"}))
    assert canonical(one, frozenset()) != canonical(two, frozenset())


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"messages":[{"role":"user","content":"a"}]}', "model"),
        (b'{"model":"m","messages":[{"content":"a"}]}', "messages[0].role"),
        (b'{"model":"m","messages":[{"role":"user"}]}', "messages[0].content"),
        (b'{"model":"m","messages":[{"role":"user","content":[{"text":"a"}]}]}', "messages[0].content[0].type"),
        (b'{"model":"","messages":[{"role":"user","content":"a"}]}', "model"),
    ],
)
def test_what_is_missing_is_named(body: bytes, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_chat(body)
    assert caught.value.param == param


@pytest.mark.parametrize("prompt", ["a", ["a", "b"], [1, 2], [[1], [2, 3]]])
def test_prompts_of_every_kind(prompt: str | list[Any]) -> None:
    envelope = decode_completion(msgspec.json.encode({"model": "m", "prompt": prompt}))
    assert list(envelope.texts()) == (
        [prompt] if isinstance(prompt, str) else [one for one in prompt if isinstance(one, str)]
    )


def test_a_completion_needs_a_prompt() -> None:
    with pytest.raises(BadRequest) as caught:
        decode_completion(b'{"model":"m"}')
    assert caught.value.param == "prompt"
