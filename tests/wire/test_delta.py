"""Text that stands in an event's bytes: found there, or left to whoever reads all of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.delta import plain_delta
from penstock.wire.event import encode_text


def event(delta: object, **more: object) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None, **more}]}


@given(text=st.text(min_size=1), other=st.text(), compact=st.booleans(), ascii_only=st.booleans())
def test_another_text_in_its_place_changes_nothing_else(text: str, other: str, compact: bool, ascii_only: bool) -> None:
    try:
        text.encode(), other.encode()
    except UnicodeEncodeError:  # half a surrogate pair is no text
        return
    payload = json.dumps(
        event({"content": text}), separators=(",", ":") if compact else None, ensure_ascii=ascii_only
    ).encode()
    plain = plain_delta(payload)
    if plain is None:
        assert encode_text(text) not in payload or b"\\u" in payload, "only where it is written in another way"
        return
    found, begin, end = plain
    assert found == text
    assert json.loads(payload[:begin] + encode_text(other) + payload[end:]) == event({"content": other})


@pytest.mark.parametrize(
    "document",
    [
        event({"content": "a", "role": "assistant"}),
        event({"role": "assistant", "content": "a"}),
        event({"content": ""}),
        event({"content": None}),
        event({"content": 1}),
        event({}),
        event({"reasoning_content": "a"}),
        event({"content": "a"}, finish_reason="stop"),
        event({"content": "a"}, logprobs={"content": []}),
        event({"content": "a"}, index=1),
        event({"tool_calls": [{"content": "a"}]}),
        {**event({"content": "a"}), "note": {"content": "b"}},
        {"choices": [*event({"content": "a"})["choices"], *event({"content": "b"}, index=1)["choices"]]},
        {"choices": [], "x": {"content": "a"}},
        {"choices": [{"index": 0, "delta": {}, "x": {"content": "a"}}]},
        {"content": "a"},
        {"choices": 1, "delta": {"content": "a"}},
    ],
)
def test_whatever_else_is_in_it_somebody_has_to_look(document: object) -> None:
    assert plain_delta(json.dumps(document).encode()) is None


@pytest.mark.parametrize(
    "payload", [b"", b"{", b'{"content":"a"}', b'"content":"a"', b'{"choices":[{"delta":{"content":']
)
def test_what_is_no_event_is_not_plain(payload: bytes) -> None:
    assert plain_delta(payload) is None


def test_a_member_named_twice_is_not_plain() -> None:
    assert plain_delta(b'{"choices":[{"index":0,"delta":{"content":"a","content":"b"}}]}') is None
