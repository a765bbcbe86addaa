from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.resume import ids_line, without_ids

TOKENS = st.lists(st.integers(0, 10**6), max_size=5)
EVENTS = st.lists(st.tuples(st.text(), st.none() | st.tuples(st.integers(0, 10**6), TOKENS)), max_size=6)


@given(EVENTS)
def test_the_lines_come_out_and_the_events_stay(told: list[tuple[str, tuple[int, list[int]] | None]]) -> None:
    plain = [b"data: " + text.replace("\n", "\\n").encode() + b"\n\n" for text, _ in told]
    marked = [(b"" if ids is None else ids_line(*ids)) + event for event, (_, ids) in zip(plain, told, strict=True)]
    clean, lines = without_ids(b"".join(marked))
    assert clean == b"".join(plain)
    numbers = [[int(number) for number in line.split()] for line in lines]
    assert numbers == [[sent, *tokens] for _, ids in told if ids is not None for sent, tokens in [ids]]


def test_a_text_that_looks_like_one_is_none() -> None:
    event = b'data: {"content":":ids 5 6"}\n\n'
    assert without_ids(event) == (event, [])
    assert without_ids(b":ids 1 2\n" + event) == (event, [b"1 2"])
