"""Responses made of chats: whatever an engine says, it is told once, in order, and never as more than it was."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import BadRequest
from penstock.wire.responses import chat_body, decode_responses, param_of
from penstock.wire.responses_answer import Object, ResponseStream, response_head, whole_response
from penstock.wire.sse import event_data, split_events

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def head(**fields: Any) -> Object:
    body = msgspec.json.encode({"model": "m", "input": "hi", **fields})
    return response_head(decode_responses(body), body, name="1", at=5.0)


def chunk(delta: Any, finish: Any = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"choices": [choice], **more}) + b"\n\n"


def events(*pieces: bytes) -> list[Object]:
    stream = ResponseStream(head())
    told = b"".join(stream.take(piece) for piece in pieces)
    return [msgspec.json.decode(event_data(event)) for event in split_events(told)]


DONE = b"data: [DONE]\n\n"


def test_thoughts_a_text_a_refusal_and_two_calls_at_a_time() -> None:
    first = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}
    second = {"index": 1, "id": "c2", "function": {"name": "g", "arguments": "["}}
    got = events(
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "hm"}) + chunk({"reasoning_content": "m"}),
        chunk({"content": "a"}),
        chunk({"content": "b"}) + chunk({"refusal": "no"}),
        chunk({"tool_calls": [first, second]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        chunk({"tool_calls": [{"index": 1, "function": {"arguments": "]"}}]}),
        chunk({}, "tool_calls", usage={"prompt_tokens": 3, "completion_tokens": 4}),
        DONE,
    )
    assert [event["sequence_number"] for event in got] == list(range(len(got)))
    assert got[-1]["type"] == "response.completed"
    response = got[-1]["response"]
    assert [item["type"] for item in response["output"]] == ["reasoning", "message", "function_call", "function_call"]
    thought, message, one, two = response["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "hmm"}]
    assert [part.get("text", part.get("refusal")) for part in message["content"]] == ["ab", "no"]
    assert [(call["call_id"], call["name"], call["arguments"]) for call in (one, two)] == [
        ("c1", "f", "{}"),
        ("c2", "g", "[]"),
    ]
    assert response["usage"]["total_tokens"] == 7
    for item in response["output"]:
        added = [e for e in got if e["type"] == "response.output_item.added" and e["item"]["id"] == item["id"]]
        done = [e for e in got if e["type"] == "response.output_item.done" and e["item"]["id"] == item["id"]]
        assert len(added) == len(done) == 1
        assert done[0]["item"] == item
        assert added[0]["output_index"] == done[0]["output_index"] == response["output"].index(item)


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("stop", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
    ],
)
def test_how_it_ended(finish: str, status: str, reason: str | None) -> None:
    last = events(chunk({"content": "a"}, finish), DONE)[-1]
    assert last["type"] == f"response.{status}"
    details = last["response"]["incomplete_details"]
    assert (details["reason"] if details else None) == reason
    answer = {"choices": [{"message": {"content": "a"}, "finish_reason": finish}]}
    whole = msgspec.json.decode(whole_response(head(), msgspec.json.encode(answer)))
    assert {**whole, "usage": None} == {**last["response"], "usage": None}


def test_log_probabilities_stand_with_their_text() -> None:
    told = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]}
    piece = msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": told}]})
    got = events(b"data: " + piece + b"\n\n", chunk({}, "stop"), DONE)
    assert got[-1]["response"]["output"][0]["content"][0]["logprobs"] == told["content"]
    assert [event["logprobs"] for event in got if event["type"] == "response.output_text.delta"] == [told["content"]]


def test_after_an_error_nothing_is_said_to_be_complete() -> None:
    got = events(
        chunk({"content": "a"}), b'data: {"error":{"message":"gone","code":"x"}}\n\n', chunk({"content": "b"}), DONE
    )
    assert got[-1]["type"] == "response.failed"
    assert got[-1]["response"]["error"] == {"code": "x", "message": "gone"}
    assert got[-1]["response"]["output"][0]["content"][0]["text"] == "a"
    assert got[-1]["response"]["output"][0]["status"] == "incomplete"


@given(st.lists(st.text(), max_size=20), st.integers(1, 5))
def test_every_text_is_told_once_however_it_is_cut(texts: list[str], together: int) -> None:
    pieces = [chunk({"content": text}) for text in texts]
    joined = [b"".join(pieces[at : at + together]) for at in range(0, len(pieces), together)]
    got = events(*joined, chunk({}, "stop"), DONE)
    assert "".join(event["delta"] for event in got if event["type"].endswith(".delta")) == "".join(texts)
    output = got[-1]["response"]["output"]
    assert "".join(part["text"] for item in output for part in item["content"]) == "".join(texts)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["choices", "usage"]), JSON) | JSON.map(lambda v: {"choices": [v]}), max_size=5
    )
)
def test_an_engines_nonsense_breaks_nothing(chunks: list[Any]) -> None:
    deltas = [{"choices": [{"delta": value, "finish_reason": value, "logprobs": value}]} for value in chunks]
    calls = [{"choices": [{"delta": {"tool_calls": [value]}, "message": value}], "usage": value} for value in chunks]
    for documents in (chunks, deltas, calls):
        got = events(*[b"data: " + msgspec.json.encode(one) + b"\n\n" for one in documents], DONE)
        assert got[-1]["type"].startswith("response.")
        for document in documents:
            msgspec.json.decode(whole_response(head(), msgspec.json.encode(document)))


@given(st.dictionaries(st.text(max_size=12).filter(lambda name: name not in {"model", "input"}), JSON, max_size=6))
def test_members_that_are_not_known_pass_and_known_ones_never_turn_into_others(members: dict[str, Any]) -> None:
    body = msgspec.json.encode({"model": "m", "input": "hi", **members})
    try:
        asked = decode_responses(body)
        chat = msgspec.json.decode(chat_body(asked, body))
    except BadRequest as error:
        assert error.param is not None
        return
    assert chat["model"] == "m"
    assert chat["messages"][-1] == {"role": "user", "content": "hi"}
    known = set(asked.__struct_fields__) | {"background", "conversation", "max_tool_calls", "n", "stream_options"}
    for name, value in members.items():
        if name not in known and name not in {"previous_response_id", "prompt", "truncation"} and value is not None:
            assert chat[name] == value


def test_names_of_fields_go_back() -> None:
    assert param_of("messages[3].content") == "input"
    assert param_of("response_format") == "text.format"
    assert param_of("temperature") == "temperature"


def test_what_was_asked_for_is_told() -> None:
    told = head(
        tools=[{"type": "function", "name": "f"}], text={"format": {"type": "text"}}, metadata={"a": "b"}, top_p=0.5
    )
    made = msgspec.json.decode(msgspec.json.encode(told))
    assert made["tools"] == [{"type": "function", "name": "f"}]
    assert (made["metadata"], made["top_p"], made["id"], made["store"]) == ({"a": "b"}, 0.5, "resp_1", False)
