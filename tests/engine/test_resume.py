"""An answer that one replica broke off, gone on with by another: cut at every place where it can be cut."""

import json
from typing import Any

import httpx
import msgspec
import pytest

from penstock.engine.text import Tokenizer
from penstock.wire.resume import CONTINUE, HEADER, TELL
from penstock.wire.sse import event_data, split_events
from tests.engine.conftest import DEADLINE_S, Running

pytestmark = pytest.mark.engine

TOLD = {HEADER.decode(): TELL.decode()}
GO_ON = {HEADER.decode(): CONTINUE.decode()}


class Event(msgspec.Struct, frozen=True):
    """One event of a stream: the text that it brings, the tokens that it tells, and how much text there is with it."""

    document: dict[str, Any]
    text: str = ""
    tokens: tuple[int, ...] = ()
    sent: int = 0


def ask(engine: Running, path: str = "chat/completions", *, headers: dict[str, str], **fields: Any) -> httpx.Response:
    prompt: dict[str, Any] = (
        {"messages": [{"role": "user", "content": "where is the order?"}]}
        if path.startswith("chat")
        else {"prompt": "the order"}
    )
    body = {"model": "tiny", **prompt, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 24}
    return httpx.post(f"{engine.url}/v1/{path}", headers=headers, json={**body, **fields}, timeout=DEADLINE_S)


def events(reply: httpx.Response) -> list[Event]:
    assert reply.status_code == 200, reply.text
    found = []
    data = split_events(reply.content)
    assert data.pop() == b"data: [DONE]\n\n"
    for event in data:
        tokens: tuple[int, ...] = ()
        sent = 0
        if event.startswith(b":ids "):
            sent, *rest = map(int, event[5 : event.index(b"\n")].split())
            tokens = tuple(rest)
        document = json.loads(event_data(event))
        choice = (document["choices"] or [{}])[0]
        text = choice.get("delta", choice).get("content", choice.get("text")) or ""
        found.append(Event(document, text, tokens, sent))
    return found


def text_of(found: list[Event]) -> str:
    return "".join(event.text for event in found)


def finish_of(found: list[Event]) -> list[str]:
    return [
        c["finish_reason"] for event in found for c in event.document["choices"] if c.get("finish_reason") is not None
    ]


def so_far(found: list[Event]) -> dict[str, Any]:
    return {
        "id": found[0].document["id"],
        "created": found[0].document["created"],
        "tokens": [token for event in found for token in event.tokens],
        "sent": max(event.sent for event in found),
    }


GREEDY: dict[str, Any] = {"temperature": 0}
WAYS: list[dict[str, Any]] = [
    GREEDY,
    {**GREEDY, "ignore_eos": True, "max_tokens": 60},
    {"seed": 5, "temperature": 1.3, "max_tokens": 40, "ignore_eos": True},
]


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize("fields", WAYS)
def test_cut_anywhere_nothing_is_lost_or_said_twice(engine: Running, path: str, fields: dict[str, Any]) -> None:
    whole = events(ask(engine, path, headers=TOLD, **fields))
    assert sum(len(event.tokens) for event in whole) == whole[-1].document["usage"]["completion_tokens"]
    for cut in range(1, len(whole) - 1):
        before = whole[:cut]
        after = events(ask(engine, path, headers=GO_ON, penstock_continue=so_far(before), **fields))
        together = [*before, *after]
        assert {event.document["id"] for event in after} == {whole[0].document["id"]}
        assert not any("role" in c.get("delta", {}) for event in after for c in event.document["choices"])
        assert len(finish_of(together)) == 1 or finish_of(before), (
            "the reason is told once more if it was the last to be told"
        )
        tokens = [token for event in together for token in event.tokens]
        usage = after[-1].document["usage"]
        assert usage["prompt_tokens"] == whole[-1].document["usage"]["prompt_tokens"]
        assert usage["completion_tokens"] == len(tokens)
        assert text_of(together) == spoken(engine, tokens), f"cut after {cut} events"
        if fields.get("temperature") == 0:
            assert text_of(together) == text_of(whole)
            assert usage == whole[-1].document["usage"]
            assert finish_of(after) == finish_of(whole)


def spoken(engine: Running, tokens: list[int]) -> str:
    """What all `tokens` together say."""
    detokenizer = TOKENIZERS[engine.url].detokenizer()
    return detokenizer.feed(tokens) + detokenizer.finish()


TOKENIZERS: dict[str, Tokenizer] = {}


@pytest.fixture(autouse=True, scope="module")
def tokenizer(engine: Running, tiny: Any) -> None:
    TOKENIZERS[engine.url] = Tokenizer(tiny)


def test_a_stop_string_across_the_seam_is_found(engine: Running) -> None:
    fields = {**GREEDY, "ignore_eos": True, "max_tokens": 60}
    text = text_of(events(ask(engine, headers=TOLD, **fields)))
    stop = text[20:26]
    assert len(stop) == 6
    expected = text[: text.index(stop)]
    whole = events(ask(engine, headers=TOLD, stop=stop, **fields))
    assert text_of(whole) == expected
    assert finish_of(whole) == ["stop"]
    for cut in range(1, len(whole) - 1):
        after = events(ask(engine, headers=GO_ON, stop=stop, penstock_continue=so_far(whole[:cut]), **fields))
        assert text_of(whole[:cut]) + text_of(after) == expected
        assert finish_of(after) == ["stop"]


def test_half_a_character_is_made_whole_after_the_seam(engine: Running) -> None:
    """Tokens that are the bytes of one character, cut between them."""
    smile = list("😀".encode())  # byte tokens have the numbers of their bytes
    for cut in range(5):
        state = {"id": "chatcmpl-1", "created": 1, "tokens": [72, *smile[:cut]], "sent": 1}
        after = events(ask(engine, headers=GO_ON, penstock_continue=state, max_tokens=1 + cut + 1, **GREEDY))
        tokens = [72, *smile[:cut], *(token for event in after for token in event.tokens)]
        assert "H" + text_of(after) == spoken(engine, tokens)
    state = {"id": "chatcmpl-1", "created": 1, "tokens": [72, *smile], "sent": 1}
    after = events(ask(engine, headers=GO_ON, penstock_continue=state, max_tokens=5, **GREEDY))
    assert (text_of(after), finish_of(after)) == ("😀", ["length"])
    assert after[-1].document["usage"]["completion_tokens"] == 5


def test_cut_before_the_end_that_the_model_chose(engine: Running) -> None:
    """The token that ends an answer is told with the last text, so that the end can be told again, and no more is made."""
    fields: dict[str, Any] = {"temperature": 1.5, "max_tokens": 200}
    asked = (events(ask(engine, headers=TOLD, seed=seed, **fields)) for seed in range(60))
    # On a busy machine the end may come with text that was made just before it.
    whole = next(f for f in asked if finish_of(f) == ["stop"] and len(f) > 3 and not text_of(f[-2:]))
    after = events(ask(engine, headers=GO_ON, penstock_continue=so_far(whole[:-2]), **fields))
    assert (text_of(after), finish_of(after)) == ("", ["stop"])
    assert after[-1].document["usage"] == whole[-1].document["usage"]
    state = {**so_far(whole[:-1]), "ended": True}
    (last,) = events(ask(engine, headers=GO_ON, penstock_continue=state, **fields))
    assert last.document["usage"] == whole[-1].document["usage"]


def test_what_had_ended_ends_at_once(engine: Running) -> None:
    state = {"id": "chatcmpl-1", "created": 1, "tokens": [72, 73, 257], "sent": 1}  # 257 ends an answer
    after = events(ask(engine, headers=GO_ON, penstock_continue=state))
    assert (text_of(after), finish_of(after)) == ("I", ["stop"])
    assert after[-1].document["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("headers", "fields", "says"),
    [
        ({}, {"penstock_continue": {"id": "x", "created": 1}}, "penstock_continue"),
        (TOLD, {"penstock_continue": {"id": "x", "created": 1}}, "penstock_continue"),
        (GO_ON, {}, "penstock_continue is wrong"),
        (GO_ON, {"penstock_continue": {"id": "x", "created": 1, "sent": -1}}, "sent"),
        (GO_ON, {"penstock_continue": {"id": "x", "created": 1, "tokens": [99999]}}, "99999"),
        (GO_ON, {"penstock_continue": {"id": "x", "created": 1}, "n": 2}, "one choice"),
        (GO_ON, {"penstock_continue": {"id": "x", "created": 1}, "logprobs": True}, "log-probabilities"),
        (GO_ON, {"penstock_continue": {"id": "x", "created": 1}, "presence_penalty": 1}, "penalties"),
    ],
)
def test_what_cannot_be_continued_is_refused(
    engine: Running, headers: dict[str, str], fields: dict[str, Any], says: str
) -> None:
    refused = ask(engine, headers=headers, **fields)
    assert refused.status_code == 400
    assert says in refused.json()["error"]["message"]


@pytest.mark.parametrize("fields", [{"n": 2}, {"logprobs": True}, {"frequency_penalty": 0.5}])
def test_tokens_are_not_told_where_nobody_could_go_on_from_them(engine: Running, fields: dict[str, Any]) -> None:
    assert not any(event.tokens for event in events(ask(engine, headers=TOLD, **fields)))
    assert not any(event.tokens for event in events(ask(engine, headers={})))
