"""Masking of texts that are kept: nothing of what is planted stays, wherever it is; and little else goes."""

import re
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from examples.support_bot.generator import conversations, open_corpus
from penstock.core.snapshot import Detectable
from penstock.guard.masking import Masker

ALL: tuple[Detectable, ...] = ("payment_card", "email", "phone", "iban", "secret")
MASKER = Masker(ALL)


def _card(digits: list[int], separator: str) -> str:
    total = sum(d if i % 2 else (d * 2 - 9 if d > 4 else d * 2) for i, d in enumerate(reversed(digits)))
    text = "".join(map(str, digits)) + str(-total % 10)
    return separator.join(text[at : at + 4] for at in range(0, len(text), 4))


_digit = st.integers(0, 9)
_cards = st.builds(
    lambda first, rest, separator: _card([first, *rest], separator),
    st.sampled_from([2, 4, 5, 6]),
    st.lists(_digit, min_size=14, max_size=14),
    st.sampled_from(["", " ", "-"]),
)
_word = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)
_emails = st.builds(
    lambda name, host, tld: f"{name}@{host}.{tld}", _word, _word, st.sampled_from(["de", "com", "co.uk"])
)
_IBANS = st.sampled_from(
    ["DE89370400440532013000", "GB82 WEST 1234 5698 7654 32", "FR1420041010050500013M02606", "NO93 8601 1117 947"]
)
# what stands beside it: anything but what would make it part of a longer number or name
_around = st.text(max_size=40).filter(lambda text: "@" not in text)
_left = st.sampled_from(["", " ", ": ", "(", "\n", "“", "=", ", ", "é ", "号 ", "5 ", "12, ", "no. 7 "])
_right = st.sampled_from(["", " ", ".", ", 123", " 123", " 12/27", ")", "\n", "!", " ok", "”", " 号"])


@settings(max_examples=400)
@given(planted=_cards | _emails | _IBANS, before=_around, left=_left, right=_right, after=_around)
def test_nothing_that_is_planted_stays(planted: str, before: str, left: str, right: str, after: str) -> None:
    text = f"{before}\n{left}{planted}{right}\n{after}"
    (masked,) = MASKER.mask([text])
    assert planted not in masked
    plain = planted.replace(" ", "").replace("-", "")
    assert plain not in masked.replace(" ", "").replace("-", "")


@given(st.lists(_around | _cards | _emails, max_size=6))
def test_texts_are_masked_as_each_alone(texts: list[str]) -> None:
    assert MASKER.mask(texts) == [MASKER.mask([text])[0] for text in texts]
    masked = MASKER.mask(texts)
    assert MASKER.mask(masked) == masked


def test_nothing_is_looked_for_without_detectors() -> None:
    assert Masker(()).mask(["jane@example.com"]) == ["jane@example.com"]
    assert Masker(("email",)).mask(["jane@example.com 4111 1111 1111 1111"]) == ["[email] 4111 1111 1111 1111"]
    assert Masker(("number",)).mask(["order 48 213 77"]) == ["order [number]"]


def test_support_conversations_stay_readable() -> None:
    """In the worked example's corpus, which names nobody, order numbers, prices, dates and sizes stay; but not what begins as numbers abroad do."""
    texts = [
        message["content"]
        for conversation in islice(conversations(open_corpus(), 11), 1000)
        for message in conversation.messages()
    ]
    changed = [(text, masked) for text, masked in zip(texts, MASKER.mask(texts), strict=True) if text != masked]
    assert len(texts) > 3000
    assert len(changed) <= 0.015 * len(texts)
    assert not [pair for pair in changed if not re.search(r"\b00\d{6,13}\b", pair[0])]
