"""Sealed content: it opens as what it is, where it belongs, under its own key, and in no other way."""

import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.errors import Damaged
from penstock.core.exchange import Content
from penstock.journal import sealing
from penstock.journal.content import LEAST_BYTES, Said, unseal
from penstock.journal.sealing import SubjectKey

KEY = SubjectKey("ab" * 16, b"\1" * 32)
_texts = st.text(max_size=50)
_said = st.builds(
    Said,
    messages=st.lists(st.tuples(_texts, _texts), max_size=4).map(tuple),
    replies=st.lists(st.tuples(st.integers(0, 9), _texts, _texts), max_size=3).map(tuple),
)


HELLO = Said(messages=(("user", "hello"),))


def sealed(said: Said = HELLO, request: str = "req_1", tenant: str = "acme") -> Content:
    return Content(KEY.id, KEY.seal(tenant, request, list(said.messages), list(said.replies)))


@given(_said)
def test_what_is_sealed_opens_as_it_was(said: Said) -> None:
    content = sealed(said)
    assert unseal(KEY, "acme", "req_1", content) == said
    for _, text in said.messages:
        assert len(text) < 4 or text.encode() not in content.sealed


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_is_noticed(at: int, bits: int) -> None:
    content = sealed()
    at %= len(content.sealed)
    flipped = bytearray(content.sealed)
    flipped[at] ^= bits
    with pytest.raises(Damaged, match="req_1") as caught:
        unseal(KEY, "acme", "req_1", msgspec.structs.replace(content, sealed=bytes(flipped)))
    assert caught.value.code == "content_damaged"


@given(st.integers(0, LEAST_BYTES + 8))
def test_what_is_cut_off_is_noticed(length: int) -> None:
    content = sealed()
    with pytest.raises(Damaged):
        unseal(KEY, "acme", "req_1", msgspec.structs.replace(content, sealed=content.sealed[:length]))


def test_it_fits_no_other_record() -> None:
    one, other = sealed(request="req_1"), sealed(request="req_2")
    for key, tenant, request, content in (
        (KEY, "acme", "req_2", one),  # two requests' ciphertexts, swapped
        (KEY, "acme", "req_1", other),
        (KEY, "other", "req_1", one),
        (SubjectKey(KEY.id, b"\2" * 32), "acme", "req_1", one),  # another tenant's key
        (SubjectKey("cd" * 16, KEY.key), "acme", "req_1", one),
    ):
        with pytest.raises(Damaged):
            unseal(key, tenant, request, content)


def test_no_two_messages_meet_under_one_key_and_nonce() -> None:
    """Within a holder of the key nonces are counted; another holder, and who has counted to the end, has a salt of its own."""
    assert len({sealed().sealed[:28] for _ in range(1000)}) == 1000
    salts: list[int] = []

    def entropy(count: int) -> bytes:
        salts.append(count)
        return os.urandom(count)

    holders = [SubjectKey(KEY.id, KEY.key) for _ in range(3)]
    made = [one.seal("acme", "r", [("user", "x")], [], entropy) for _ in range(5) for one in holders]
    assert salts == [16, 16, 16]
    assert len({one[:16] for one in made}) == 3
    assert len({one[:28] for one in made}) == 15
    tired = SubjectKey(KEY.id, KEY.key)
    before = tired.seal("acme", "r", [], [], entropy)
    tired._count = sealing.MOST_MESSAGES
    after = tired.seal("acme", "r", [], [], entropy)
    assert before[:16] != after[:16]
    assert unseal(tired, "acme", "r", Content(KEY.id, after)) == Said()


def test_the_format_is_what_the_page_says() -> None:
    """Opened by hand, as `docs/reference/journal-format.md` tells readers in other languages to."""
    from blake3 import blake3
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    content = sealed(Said(messages=(("user", "hello"),), replies=((0, "content", "hi"),)))
    data = content.sealed
    message = blake3(data[:16], key=KEY.key).digest()
    about = b"penstock content 1\0acme\0req_1\0" + KEY.id.encode()
    plain = AESGCM(message).decrypt(data[16:28], data[28:], about)
    assert msgspec.msgpack.decode(plain) == [[["user", "hello"]], [[0, "content", "hi"]]]
