from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import Damaged
from penstock.engine.messages import Sampling
from penstock.engine.sequence import Sequence
from penstock.engine.text import Detokenizer, PieceDetokenizer, Tokenizer, WindowDetokenizer

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Tokenizer:
    return Tokenizer(tiny)


def text_of(detokenizer: Detokenizer, tokens: list[int]) -> list[str]:
    return [*(detokenizer.feed([token]) for token in tokens), detokenizer.finish()]


def test_every_token_of_a_byte_level_vocabulary_has_its_bytes(tokenizer: Tokenizer) -> None:
    assert tokenizer.pieces is not None
    assert tokenizer.pieces[:256] == [bytes([value]) for value in range(256)]
    assert set(tokenizer.pieces[256:261]) == {b""}  # special tokens say nothing
    assert tokenizer.pieces[262] == b"the"


def test_the_beginning_is_marked_once(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a", special=True) == [256, 97]
    assert tokenizer.encode("<|bos|>a", special=True) == [256, 97]


@settings(deadline=None)
@given(text=st.text(max_size=30), data=st.data())
def test_text_comes_back_whole_whatever_the_bytes_are_cut_into(
    tokenizer: Tokenizer, text: str, data: st.DataObject
) -> None:
    tokens = list(text.encode(errors="ignore"))
    text = bytes(tokens).decode()
    assert tokenizer.pieces is not None
    for detokenizer in (PieceDetokenizer(tokenizer.pieces, strip=False), WindowDetokenizer(tokenizer._tokenizer)):
        pieces = text_of(detokenizer, tokens)
        assert "".join(pieces) == text
        so_far = 0
        for piece in pieces:
            assert text.startswith(piece, so_far)  # whole characters only, in order
            so_far += len(piece)


def test_broken_bytes_become_replacement_characters(tokenizer: Tokenizer) -> None:
    assert text_of(tokenizer.detokenizer(), [0xC3, 0x28, 0xF0, 0x9F]) == ["", "\ufffd(", "", "", "\ufffd"]


def test_a_sentencepiece_vocabulary_loses_the_first_space_only() -> None:
    detokenizer = PieceDetokenizer([b" a", b" b"], strip=True)
    assert text_of(detokenizer, [0, 1, 0]) == ["a", " b", " a", ""]


def sequence(tokenizer: Tokenizer, *stops: str, logprobs: bool = False) -> Sequence:
    sampling = Sampling(max_tokens=9, logprobs=logprobs)
    return Sequence(0, [1], sampling, tokenizer=tokenizer, stops=stops, arrived_ns=0, tells_logprobs=logprobs)


def test_a_stop_string_ends_a_sequence_and_is_not_seen(tokenizer: Tokenizer) -> None:
    one = sequence(tokenizer, "the end")
    one.feed([97, 262, 32, 101], None, "")
    assert one.take() == ("a", [])
    one.feed([110, 100, 46, 46], None, "")
    assert one.take() == ("", [])
    assert (one.finish, one.completion) == ("stop", 6)
    one.feed([97], None, "length")
    assert (one.take(), one.finish, one.completion) == (("", []), "stop", 6)


def test_what_was_held_for_a_stop_string_comes_at_the_end(tokenizer: Tokenizer) -> None:
    one = sequence(tokenizer, "the end")
    one.feed([262, 32], None, "length")
    assert (one.take()[0], one.finish) == ("the ", "length")


def test_log_probabilities_come_with_their_text(tokenizer: Tokenizer) -> None:
    one = sequence(tokenizer, "the end", logprobs=True)
    one.feed([97, 262], [-0.5, -1.5], "")
    text, chosen = one.take()
    assert (text, [c.data for c in chosen]) == ("a", [b"a"])
    one.feed([97, 257], [-2.5, -0.1], "stop")
    text, chosen = one.take()
    assert text == "thea"
    assert [(c.data, c.offset, c.logprob) for c in chosen] == [(b"the", 1, -1.5), (b"a", 4, -2.5)]


def test_a_folder_without_a_tokenizer_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "openvino_tokenizer.xml").write_text("<net/>")
    (tmp_path / "openvino_detokenizer.xml").write_text("<net/>")
    with pytest.raises(Damaged, match="tokenizer"):
        Tokenizer(tmp_path)
