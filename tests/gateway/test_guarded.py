"""A stream's events under content rules: the quick way, of events that are written alike, and the way that reads each of them agree."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.snapshot import Policy, Rule
from penstock.gateway.guarded import GuardedAnswer
from penstock.guard.policies import Guard, compile_policy

CARD = "4111 1111 1111 1111"
PIECES = [
    "a", " the", " card ", ".", "1", "4", "é", "中", "foo", "foo bar", CARD, CARD[:9], "ann@shop.example", "ann@", '"', "\\", "\n", "\x7f", "<b>", "",
]  # fmt: skip
COMPILED = compile_policy(
    Policy(
        name="p",
        rules=(
            Rule(name="cards", detect="payment_card", do="mask"),
            Rule(name="mail", detect="email", do="mask"),
            Rule(name="words", words=("foo bar",), do="block"),
        ),
    )
)
assert COMPILED is not None
GUARD: Guard = COMPILED


def event(text: str, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None, **more}
    return b"data: " + json.dumps({"id": "c", "choices": [choice]}, ensure_ascii=False).encode() + b"\n\n"


def last() -> bytes:
    return b"data: " + json.dumps({"id": "c", "choices": [{"delta": {}, "finish_reason": "stop"}]}).encode() + b"\n\n"


def sent(events: list[bytes], *, quick: bool) -> tuple[list[bytes], object, bool, int]:
    answer = GuardedAnswer(GUARD)
    out: list[bytes] = []
    quickly = 0
    for one in events:
        shown = answer.alike(one) if quick else None
        if shown is None:
            shown = answer.event(one[6:-2])
        else:
            quickly += 1
        out.append(shown)
        if answer.blocked:
            break
    return out, answer.findings, answer.blocked, quickly


def texts(events: list[bytes]) -> list[str]:
    return [json.loads(one[6:])["choices"][0]["delta"].get("content") or "" if one else "" for one in events]


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12), draws=st.randoms(use_true_random=False))
def test_both_ways_show_and_find_the_same_event_by_event(pieces: list[str], draws: random.Random) -> None:
    events = []
    for piece in pieces:
        cut = draws.randint(0, len(piece))
        events += [event(piece[:cut]), event(piece[cut:])]
    events.append(last())
    quick, findings, blocked, _ = sent(events, quick=True)
    slow, expected, stopped, _ = sent(events, quick=False)
    assert texts(quick) == texts(slow)
    assert (findings, blocked) == (expected, stopped)


def test_plain_events_go_the_quick_way_and_unchanged_ones_are_the_same_bytes() -> None:
    events = [event(f"<word {n}>") for n in range(10)]
    out, _, _, quickly = sent(events, quick=True)
    assert quickly == 9, "after the first"
    assert all(a is b for a, b in zip(out[1:], events[1:], strict=True))


def test_what_is_held_back_is_shown_in_the_next_event() -> None:
    out, _, _, quickly = sent(
        [event("<a>"), event("mail ann"), event(" now"), event(" ann@shop.exa"), event("mple <"), last()], quick=True
    )
    assert texts(out) == ["<a>", "mail ", "ann ", "now ", "[email] <", ""] and quickly >= 2


@pytest.mark.parametrize(
    "other",
    [
        event("b", finish_reason="stop"),
        event("b", index=1),
        event("b", logprobs={"content": []}),
        event('b"},"logprobs":null,"finish_reason":null}],"usage":{"total_tokens":3},"x":[{"a":"'),
        event("b").replace(b'"b"', b'"b", "role": "x"'),
        event("b").replace(b'"b"', b'"\\u0062"'),
        event("b").replace(b'"b"', b'"\nb"'),
        event("b")[:-1],
        b"data: [DONE]\n\n",
        b"",
    ],
)
def test_an_event_of_another_form_is_looked_into(other: bytes) -> None:
    answer = GuardedAnswer(GUARD)
    answer.event(event("<a>")[6:-2])
    assert answer.alike(event("<b>")) is not None
    assert answer.alike(other) is None


def test_after_the_end_of_a_choice_nothing_is_taken_for_granted() -> None:
    answer = GuardedAnswer(GUARD)
    answer.event(event("<a>")[6:-2])
    answer.event(event("b", finish_reason="stop")[6:-2])
    assert answer.alike(event("<b>")) is None


def test_what_is_held_when_a_stream_ends_without_saying_so_is_shown() -> None:
    answer = GuardedAnswer(GUARD)
    shown = [answer.event(event("mail ann")[6:-2]), answer.rest(), answer.rest()]
    assert texts(shown) == ["mail ", "ann", ""]
    assert json.loads(shown[1][6:])["id"] == "c", "it is written as the others are"


def test_a_rule_that_strikes_at_the_end_of_such_a_stream_ends_it() -> None:
    answer = GuardedAnswer(GUARD)
    first = answer.event(event("so foo bar")[6:-2])
    last_event = answer.rest()
    assert texts([first, last_event]) == ["so ", ""]
    assert answer.blocked
    assert json.loads(last_event[6:])["choices"][0]["finish_reason"] == "content_filter"
