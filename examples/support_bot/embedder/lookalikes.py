"""Pairs of questions that differ in one thing only, and must not share an answer: an entity, a number, a negation.

Half of them are lines of the held-out writer, half are about the world; the values are drawn, so that there are as many as wanted.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from examples.support_bot import grammar
from examples.support_bot.embedder.pairs import Writer, nearby, negated

_PLACES = [
    "Norway",
    "Peru",
    "Ghent",
    "Osaka",
    "Malta",
    "Bergen",
    "Chile",
    "Dubai",
    "Krakow",
    "Leeds",
    "Quebec",
    "Turin",
    "Hanoi",
    "Oregon",
    "Kenya",
    "Crete",
]
_PEOPLE = [
    "Anna",
    "Boris",
    "Chidi",
    "Dagny",
    "Emre",
    "Fatima",
    "Goran",
    "Hilde",
    "Ivo",
    "Jamal",
    "Keiko",
    "Lars",
    "Mei",
    "Nadia",
    "Oskar",
    "Priya",
]
_THINGS = [
    "sofa",
    "kettle",
    "rug",
    "mirror",
    "shelf",
    "duvet",
    "toaster",
    "hammock",
    "bench",
    "vase",
    "ladder",
    "pillow",
    "desk lamp",
    "garden hose",
]
_DAYS = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
    "tomorrow",
    "yesterday",
    "3 May",
    "4 May",
    "12 June",
]
_BRANDS = ["PayPal", "Klarna", "Visa", "Mastercard", "Amex", "Bitcoin", "Stripe", "Wise"]
_NAMED = (
    ("What is the capital of {}?", _PLACES),
    ("How far is {} from here?", _PLACES),
    ("do you deliver to {}", _PLACES),
    ("Is it cold in {} in winter?", _PLACES),
    ("Who won the match against {}?", _PLACES),
    ("Please send the parcel to {} instead of to me.", _PEOPLE),
    ("What did {} say about my refund?", _PEOPLE),
    ("{} has my invoice, can I get another one?", _PEOPLE),
    ("is the {} in stock", _THINGS),
    ("My {} arrived broken, what now?", _THINGS),
    ("How much does it cost to ship a {}?", _THINGS),
    ("Can I return the {} that I bought?", _THINGS),
    ("Will it come on {}?", _DAYS),
    ("are you open on {}", _DAYS),
    ("Can I pay with {}?", _BRANDS),
    ("my {} payment failed", _BRANDS),
)
_COUNTED = (
    "I was charged {} euro, why?",
    "do you take back something after {} days",
    "Can I order {} of them?",
    "Is delivery free above {} euro?",
    "my gift card has {} left",
    "it should have come {} weeks ago",
    "What is {} times 12?",
    "set a timer for {} minutes",
    "The table is {} cm long, does it fit in a lift?",
    "please change my flat number to {}",
)
_DENIED = (
    ("Can I return it if I have opened the box?", "Can I return it if I have not opened the box?"),
    ("I want to cancel my order.", "I don't want to cancel my order."),
    ("is it possible to pay later", "isn't it possible to pay later"),
    ("Do you ship with a signature?", "Do you ship without a signature?"),
    ("My card was charged.", "My card wasn't charged."),
    ("the code works", "the code does not work"),
    ("I have received the refund.", "I have never received the refund."),
    ("Which countries do you deliver to?", "Which countries do you not deliver to?"),
    ("Everything was in the box.", "Nothing was in the box."),
    ("I can log in.", "I cannot log in."),
    ("My account is locked, is that right?", "My account is unlocked, is that right?"),
    ("is the voucher valid", "is the voucher invalid"),
    ("Should I pay before it is delivered?", "Should I pay after it is delivered?"),
    ("please keep my account", "please delete my account"),
)


@dataclass(frozen=True, kw_only=True)
class Lookalike:
    """Two questions, and what is different."""

    kind: str
    one: str
    other: str


def lookalikes(writer: Writer, count: int, seed: int) -> list[Lookalike]:
    """`count` different pairs, as many of each kind."""
    rng = random.Random(seed)
    makers = {"entity": _entity, "number": _number, "negation": _negation}
    found: dict[tuple[str, str], Lookalike] = {}
    for kind, make in makers.items():
        wanted = len(found) + -(-count // len(makers))
        while len(found) < wanted:
            one, other = make(writer, rng)
            if rng.random() < 0.4:
                one, other = one.lower(), other.lower()
            if one.lower() != other.lower():
                found[one, other] = Lookalike(kind=kind, one=one, other=other)
    return list(found.values())


def _entity(writer: Writer, rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.5:
        frame, values = rng.choice(_NAMED)
        one, other = rng.sample(values, 2)
        return frame.format(one), frame.format(other)
    text = _line(writer, "{product}", rng)
    return tuple(text.replace("{product}", writer.pools.product(rng)) for _ in range(2))  # type: ignore[return-value]


def _number(writer: Writer, rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.5:
        frame = rng.choice(_COUNTED)
        one, other = rng.sample(
            (rng.randrange(2, 20), rng.randrange(20, 99), rng.randrange(100, 999), rng.randrange(2, 99) / 2), 2
        )
        return frame.format(one), frame.format(other)
    text, number = _line(writer, "{order}", rng), writer.pools.order(rng)
    return text.replace("{order}", number), text.replace("{order}", nearby(number, rng))


def _negation(writer: Writer, rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.3:
        one, other = rng.choice(_DENIED)
        ending = rng.choice(("", " Please help.", " Thanks!", f" It is about order {writer.pools.order(rng)}."))
        return one + ending, other + ending
    while True:
        line = writer.line(rng)
        text = writer.text(line, writer.slots(line, rng), rng, noise=False).text
        changed = negated(text, rng)
        if changed is not None:
            return text, changed


def _line(writer: Writer, slot: str, rng: random.Random) -> str:
    while True:
        text = grammar.expand(writer.line(rng).choice, rng)
        if slot in text and text.count("{") == 1:
            return text
