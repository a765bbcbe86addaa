from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.stops import StopFinder


def by_hand(text: str, stops: tuple[str, ...]) -> tuple[str, bool]:
    """The text before the stop string that is completed first; of several, the one that begins first."""
    for end in range(1, len(text) + 1):
        begins = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if begins:
            return text[: min(begins)], True
    return text, False


@given(
    pieces=st.lists(st.text("ab€", max_size=4), max_size=12),
    stops=st.lists(st.text("ab€", min_size=1, max_size=4), max_size=3).map(tuple),
)
def test_cut_is_the_same_however_text_comes(pieces: list[str], stops: tuple[str, ...]) -> None:
    finder = StopFinder(stops)
    out = "".join(finder.feed(piece) for piece in pieces) + finder.finish()
    assert (out, finder.hit) == by_hand("".join(pieces), stops)


@given(
    pieces=st.lists(st.text("ab", max_size=4), max_size=8),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple),
)
def test_only_the_beginning_of_a_stop_string_is_held_back(pieces: list[str], stops: tuple[str, ...]) -> None:
    finder = StopFinder(stops)
    out, text = "", ""
    for piece in pieces:
        out += finder.feed(piece)
        text += piece
        if finder.hit:
            return
        assert text.startswith(out)
        held = text[len(out) :]
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


def test_without_stop_strings_nothing_waits() -> None:
    finder = StopFinder(())
    assert finder.feed("as it comes") == "as it comes"
    assert not finder.waiting
