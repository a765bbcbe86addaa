"""Two questions agree only if they state the same facts; a question agrees with itself however it is typed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.routing.agreement import agree, marks, same_words

SAME = [
    ("Cancel order 4711", "please cancel my purchase 4711"),
    ("order no. 4711 cancel", "cancel order 4711"),
    ("Where is my parcel?", "hi, track my package pls"),
    ("WHERE IS MY ORDER?!", "where is my order"),
    ("What does shipping cost?", "how much is delivery"),
    ("how do i cancel", "i'd like to cancel"),
    ("Do you deliver to Norway?", "do you ship to norway"),
    ("I was charged 1,000 euro", "charged me \u20ac 1000?".replace("\u20ac 1000", "1000 \u20ac")),
    ("Is the Talvo lamp in stock?", "talvo lamp, in stock?"),
]
OTHER = [
    ("Is the Talvo lamp in stock?", "is the Brindo lamp in stock?"),
    ("Is the lamp in stock?", "is the chair in stock?"),
    ("cancel order 4711", "cancel order 4712"),
    ("cancel order L-4711", "cancel order K-4711"),
    ("is it $5", "is it \u20ac5"),
    ("refund within 30 days", "refund within 30 hours"),
    ("open on Monday?", "open on Tuesday?"),
    ("what's 2+2", "what's 2-2"),
    ("size M jacket?", "size L jacket?"),
    ("capital of france", "capital of germany"),
    ("write to a@example.org", "write to b@example.org"),
    ('what does "in transit" mean', 'what does "in customs" mean'),
    ("trains from Paris to Rome", "trains from Rome to Paris"),
    ("trains from Paris to Rome", "trains to Paris from Rome"),
    ("can I return it", "can't I return it"),
    ("can I return it", "cant I return it"),
    ("I don't want to cancel but return it", "I want to cancel but not return it"),
    ("Can I return my order without the box", "Can I return my order with the box"),
    ("do you ship to norway", "do you ship from norway"),
    ("is delivery possible", "is delivery impossible"),
    ("is my account locked", "is my account unlocked"),
    ("I want to keep my order 12", "I want to cancel my order 12"),
    ("turn on the newsletter", "turn off the newsletter"),
    ("Can I pay before I return it", "can I return it before I pay"),
    ("should I pay before delivery", "should I pay after delivery"),
    ("who pays the fee", "when do I pay the fee"),
    ("how long is the warranty", "how many warranty claims"),
    ("price per day", "price per week"),
    ("when is my refund due", "when is my parcel due"),
    ("Do you refuse to deliver to Norway?", "Do you deliver to Norway?"),
    ("are all items refundable", "are any items refundable"),
    ("5 pm today", "5 am today"),
    ("is the refundable rate cheaper", "is the non-refundable rate cheaper"),
    ("does it come in gold", "does it come in silver"),
    ("version 1.2.3", "version 1.2.4"),
    ("what did he say", "what did she say"),
    ("contact you by email", "contact you by phone"),
    ("when?", "When is the support open?"),
    ("4711", "cancel 4711"),
    ("ask Will", "ask May"),
    ("\u4f60\u597d", "\u518d\u89c1"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_in_other_words(one: str, other: str) -> None:
    assert agree(marks(one), marks(other))


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_another_fact_is_another_question(one: str, other: str) -> None:
    for first in (one, one.lower()):
        for second in (other, other.lower()):
            if (first, second) != ("ask will", "ask may"):  # what no capital tells is not known
                assert not agree(marks(first), marks(second)), (first, second)


def test_an_operators_words_count_as_one() -> None:
    one, other = "is my sub active", "is my subscription active"
    table = same_words([["subscription", "sub"]])
    assert not agree(marks(one), marks(other))
    assert agree(
        marks("change my plan", same_words([["plan", "bundle"]])),
        marks("change my bundle", same_words([["plan", "bundle"]])),
    )
    assert marks(one, table).content == marks(other, table).content


WORDS = st.sampled_from(
    [
        "Where",
        "is",
        "my",
        "order",
        "4711",
        "not",
        "before",
        "the",
        "Talvo",
        "lamp",
        "cancel",
        "from",
        "Norway",
        "to",
        "30",
        "days",
        "€5",
        "can't",
        '"in',
        'transit"',
        "?",
        ".",
        "a@b.de",
    ]
)


@given(st.lists(WORDS, max_size=12), st.lists(WORDS, max_size=12))
def test_agreement_is_symmetric_and_true_of_oneself(one: list[str], other: list[str]) -> None:
    a, b = marks(" ".join(one)), marks(" ".join(other))
    assert agree(a, a)
    assert agree(a, b) == agree(b, a)


@given(st.text(max_size=200), st.integers(0, 9))
def test_any_text_can_be_read_and_a_number_more_is_a_difference(text: str, digit: int) -> None:
    assert agree(marks(text), marks(text))
    assert not agree(marks(f"{text} . {digit}"), marks(f"{text} . {(digit + 1) % 10}"))


@given(st.integers(0, 2**32))
def test_two_numbers_in_another_order_are_another_question(seed: int) -> None:
    rng = random.Random(seed)
    one, other = rng.sample(range(10_000), 2)
    assert not agree(marks(f"move it from {one} to {other}"), marks(f"move it from {other} to {one}"))
