"""The rules by which an answer is judged: right intent, right fact copied, nothing invented."""

from __future__ import annotations

import re
from dataclasses import dataclass

from examples.support_bot.shop import Shop

_NUMBER = re.compile(r"\d{5,}")
_ORDER = re.compile(r"\border (?=\S*\d)([\w][\w/-]*)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Score:
    """What the rules say about one answer."""

    said: str | None  # the intent whose answer this is; None where it is none's or more than one's
    intent_right: bool
    fact_right: bool  # true where there is no fact to copy
    invented: bool
    orders: tuple[str, ...]  # the order numbers in the answer
    orders_right: int  # how many of them were asked about

    @property
    def right(self) -> bool:
        """Whether nothing is wrong with the answer."""
        return self.intent_right and self.fact_right and not self.invented


def intent_of(answer: str, shop: Shop) -> str | None:
    """The one intent whose key is in the answer, None where there is none or more than one."""
    lower = answer.lower()
    said = [name for name, intent in shop.intents.items() if any(key in lower for key in intent.key)]
    return said[0] if len(said) == 1 else None


def score(answer: str, intent: str, facts: dict[str, str], shop: Shop, conversation: str) -> Score:
    """Judges `answer` to a question of `intent` whose facts ("order", "product", "name") it must copy exactly.

    `conversation` is all text before the answer. A number of five or more digits, a product or a name that is not in it
    is invented. An order number is one asked about if it is the fact, or, where there is no such fact, in the conversation.
    """
    said = intent_of(answer, shop)
    orders = tuple(_ORDER.findall(answer))
    asked = [order == facts["order"] if "order" in facts else whole(order, conversation) for order in orders]
    invented = any(number not in conversation for number in _NUMBER.findall(answer))
    invented = invented or any(value not in conversation for value in _values(answer, said, shop))
    return Score(
        said=said,
        intent_right=said == intent,
        fact_right=all(whole(value, answer) for value in facts.values()),
        invented=invented,
        orders=orders,
        orders_right=sum(asked),
    )


def whole(value: str, text: str) -> bool:
    """Whether the value stands in the text as such, not as part of a longer number or word."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def _values(answer: str, said: str | None, shop: Shop) -> list[str]:
    """The product or name in an answer, found by laying the shop's own sentences over it."""
    intent = shop.intents.get(said or "")
    if intent is None or intent.slot not in ("product", "name"):
        return []
    found: list[str] = []
    for sentence in intent.answers:
        before, after = (re.escape(part) for part in sentence.split("{" + intent.slot + "}", 1))
        match = re.fullmatch(f"{before}(.+?){after}", answer.strip())
        if match:
            found.append(match.group(1))
    return found
