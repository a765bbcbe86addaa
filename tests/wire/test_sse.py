"""Events out of bytes, however the network cuts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.sse import DONE, EventSplitter, encode_event, event_data, split_events

PAYLOADS = st.lists(
    st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1).map(str.encode),
    max_size=8,
)


@given(PAYLOADS, st.sampled_from([b"\n", b"\r\n"]), st.lists(st.integers(1, 20), max_size=30))
def test_events_come_out_whole(payloads: list[bytes], end: bytes, cuts: list[int]) -> None:
    data = b"".join(b"data: " + payload + end + end for payload in payloads)
    splitter = EventSplitter()
    found: list[bytes] = []
    for cut in cuts:
        found += splitter.feed(data[:cut])
        data = data[cut:]
    found += splitter.feed(data)
    assert [event_data(event) for event in found] == payloads
    assert splitter.rest.strip() == b""


@given(PAYLOADS)
def test_what_is_encoded_is_read_again(payloads: list[bytes]) -> None:
    data = b"".join(encode_event(payload) for payload in payloads) + DONE
    assert [event_data(event) for event in split_events(data)] == [*payloads, b"[DONE]"]


def test_other_fields_and_several_lines() -> None:
    assert event_data(b": ping\n\n") == b""
    assert event_data(b"event: x\nid: 5\ndata: a\ndata:b\ndata:  c\n\n") == b"a\nb\n c"


def test_an_event_without_end_is_bounded() -> None:
    splitter = EventSplitter(100)
    with pytest.raises(ValueError, match="longer than 100"):
        splitter.whole(b"data: " + b"x" * 200)
    assert EventSplitter().whole(b"data: half") == b""
