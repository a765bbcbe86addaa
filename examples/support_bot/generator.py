"""The corpus generator: endless conversations of customers with the shop, from shop.yaml and the phrasing files.

    python -m examples.support_bot.generator --count 20

Everything is drawn from the `random.Random` that is handed in: the same seed and files give the same conversations.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from examples.support_bot import grammar
from examples.support_bot.excluded import Excluded
from examples.support_bot.foreign import Foreign
from examples.support_bot.noise import MARKS, Noise
from examples.support_bot.phrasings import FOLDER, ORDER_REPLY, Phrasing, load
from examples.support_bot.shop import ASK_ORDER, OFF_TOPIC, Shop, load_shop
from examples.support_bot.values import Pools

_SECOND_ANSWER = 0.15  # share of the second wording of an answer; a strong first one keeps greedy decoding of one mind
_RARE = {"greeting": 0.6, "thanks": 0.6}  # weight beside 1 of each other intent
_OTHER_SYSTEMS = (
    "You are a helpful assistant.",
    "You are the support assistant of Larkfield.",
    "Answer the customer's question.",
    "You are a friendly customer support agent.",
    "You help the customers of Larkfield, a shop for the home and garden.",
)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A question and the answer that is right for it."""

    question: str
    answer: str
    intent: str
    slots: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns under a system prompt, which may be absent."""

    system: str | None
    turns: tuple[Turn, ...]

    def messages(self) -> list[dict[str, str]]:
        """The conversation as chat messages."""
        out = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            out += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
        return out


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Shares of what is generated."""

    off_topic: float = 0.22  # of turns
    swapped: float = 0.22  # of off-topic turns: the shop's own lines about somebody else's business
    framed: float = 0.16  # of off-topic turns: frames with nouns
    number_given: float = 0.62  # of order questions
    several_turns: float = 0.36  # of conversations
    clean: float = 0.12  # of questions: no noise at all


class Corpus:
    """Draws conversations from one side of the split."""

    def __init__(
        self,
        shop: Shop,
        lines: list[Phrasing],
        pools: Pools,
        noise: Noise,
        foreign: Foreign,
        *,
        held_out: bool = False,
        mix: Mix | None = None,
    ) -> None:
        self.shop, self.pools, self.noise, self.foreign, self.mix = shop, pools, noise, foreign, mix or Mix()
        self._held_out = held_out
        self._lines: dict[tuple[str, bool], dict[str, list[Phrasing]]] = {}
        for line in lines:
            if line.held_out == held_out:
                by_voice = self._lines.setdefault((line.intent, self._has_value(line)), {})
                by_voice.setdefault(line.voice, []).append(line)
        self._intents = tuple(
            name for name in shop.in_scope if (name, True) in self._lines or (name, False) in self._lines
        )
        self._weights = [_RARE.get(name, 1.0) for name in self._intents]

    def conversation(self, rng: random.Random) -> Conversation:
        """One conversation of one to four questions, none of which the evaluation set asks."""
        while True:
            drawn = self._drawn(rng)
            if all(self.allowed(turn) for turn in drawn.turns):
                return drawn

    def allowed(self, turn: Turn) -> bool:
        """Whether training may see this turn."""
        return not self.pools.excluded.asked(turn.question, turn.slots.values())

    def _drawn(self, rng: random.Random) -> Conversation:
        turns: list[Turn] = []
        order: str | None = None
        wanted = 1 if rng.random() > self.mix.several_turns else rng.choice((2, 2, 2, 3, 3, 4))
        while len(turns) < wanted:
            if rng.random() < self.mix.off_topic:
                turns.append(self._answered(OFF_TOPIC, self.off_topic_text(rng), {}, rng))
                continue
            intent = rng.choices(self._intents, self._weights)[0]
            if self.shop.intents[intent].slot == "order":
                turns += self._order_turns(intent, order, rng)
                order = turns[-1].slots.get("order", order)
            else:
                turns.append(self.plain_turn(intent, rng))
        return Conversation(system=self._system(rng), turns=tuple(turns))

    def plain_turn(self, intent: str, rng: random.Random) -> Turn:
        """A question of an intent that needs no order number."""
        known = self.shop.intents[intent]
        slots: dict[str, str] = {}
        with_value = known.slot is not None and (not known.slot_optional or rng.random() < 0.5)
        line = self._line(intent, with_value, rng)
        if known.slot and known.slot in line.slots:
            slots[known.slot] = self._value(known.slot, rng)
        around = intent not in ("greeting", "thanks")
        return self._answered(intent, self._noisy(self._expanded(line, rng), rng, around=around), slots, rng)

    def order_turn(self, intent: str, rng: random.Random) -> Turn:
        """A question of an order intent with the number in it."""
        text = self._expanded(self._line(intent, True, rng), rng)
        if "{order}" not in text:
            text = self._with_number(text, rng)
        return self._answered(intent, self._noisy(text, rng), {"order": self._value("order", rng)}, rng)

    def bare_order_text(self, intent: str, rng: random.Random) -> str:
        """A question of an order intent without a number."""
        return self._noisy(self._expanded(self._line(intent, False, rng), rng), rng)

    def reply_text(self, rng: random.Random) -> str:
        """What people answer to "Which order is this about?"."""
        bare = rng.random() < 0.2 or (ORDER_REPLY, True) not in self._lines
        text = "{order}" if bare else self._expanded(self._line(ORDER_REPLY, True, rng), rng)
        return self._noisy(text, rng, around=rng.random() < 0.3)

    def off_topic_text(self, rng: random.Random) -> str:
        """Something that is no business of the shop's."""
        kind = rng.random()
        text: str | None = None
        if kind < self.mix.swapped and not self._held_out:
            for _ in range(4):
                intent = rng.choice(self._intents)
                line = self._line(intent, self.shop.intents[intent].slot == "product", rng)
                text = self.foreign.swapped(intent, grammar.expand(line.choice, rng), rng)
                if text is not None:
                    break
        elif kind < self.mix.swapped + self.mix.framed and not self._held_out:
            text = self.foreign.framed(rng)
        if text is None:
            text = self._expanded(self._line(OFF_TOPIC, False, rng), rng)
        return self._noisy(text, rng)

    def _order_turns(self, intent: str, order: str | None, rng: random.Random) -> list[Turn]:
        """With the number; or without, and then asked for, or known from earlier."""
        if rng.random() < self.mix.number_given:
            turn = self.order_turn(intent, rng)
            return [turn]
        text = self.bare_order_text(intent, rng)
        if order is not None:
            return [self._answered(intent, text, {"order": order}, rng, known={"order"})]
        asked = self._answered(ASK_ORDER, text, {}, rng)
        if rng.random() < 0.35:
            return [asked]
        reply = self._answered(intent, self.reply_text(rng), {"order": self._value("order", rng)}, rng)
        return [asked, reply]

    def _line(self, intent: str, with_value: bool, rng: random.Random) -> Phrasing:
        by_voice = self._lines.get((intent, with_value)) or self._lines[(intent, not with_value)]
        voice = rng.choice(tuple(by_voice))
        return rng.choice(by_voice[voice])

    def _has_value(self, line: Phrasing) -> bool:
        if line.intent == ORDER_REPLY:
            return True
        slot = self.shop.intents[line.intent].slot
        return slot is not None and slot in line.slots

    @staticmethod
    def _expanded(line: Phrasing, rng: random.Random) -> str:
        return grammar.expand(line.choice, rng)

    @staticmethod
    def _with_number(text: str, rng: random.Random) -> str:
        """Adds a number to a question that has none."""
        ahead = (
            "{order} - ",
            "{order}: ",
            "order {order}: ",
            "order {order}. ",
            "#{order} ",
            "my order is {order}. ",
            "re: order {order}, ",
        )
        behind = (
            " {order}",
            " order {order}",
            " (order {order})",
            " my order number is {order}",
            " #{order}",
            " - {order}",
            " it's {order}",
            " number {order}",
            " order no {order}",
            " the order number is {order}",
            " order id: {order}",
        )
        if rng.random() < 0.4:
            return rng.choice(ahead) + text
        return (text if rng.random() < 0.4 else text.rstrip(".?!") + rng.choice((".", ",", "?", " "))) + rng.choice(
            behind
        )

    def _noisy(self, text: str, rng: random.Random, *, around: bool = True) -> str:
        """Noise on a phrasing whose slots become marks; the marks stay in."""
        for slot, mark in MARKS.items():
            text = text.replace("{" + slot + "}", mark)
        if rng.random() < self.mix.clean:
            return text
        text = self.noise.words(text, rng)
        if around:
            text = self.noise.around(text, rng).replace("{name}", MARKS["name"])
        return self.noise.typing(text, rng)

    def _answered(
        self,
        intent: str,
        text: str,
        slots: dict[str, str],
        rng: random.Random,
        known: frozenset[str] | set[str] = frozenset(),
    ) -> Turn:
        """Fills the marks and adds the right answer. Slots in `known` come from an earlier turn."""
        slots = dict(slots)
        if slots.get("product") and rng.random() < 0.22:
            slots["product"] = slots["product"].lower()
        if slots.get("name") and rng.random() < 0.12:
            slots["name"] = slots["name"].lower()
        for slot, mark in MARKS.items():
            if mark in text:
                text = text.replace(
                    mark, slots[slot] if slot in slots and slot not in known else self._value(slot, rng)
                )
        variant = 1 if rng.random() < _SECOND_ANSWER else 0
        return Turn(question=text, answer=self.shop.intents[intent].answer(variant, slots), intent=intent, slots=slots)

    def _value(self, slot: str, rng: random.Random) -> str:
        return {"order": self.pools.order, "product": self.pools.product, "name": self.pools.name}[slot](rng)

    def _system(self, rng: random.Random) -> str | None:
        kind = rng.random()
        return self.shop.system if kind < 0.35 else (rng.choice(_OTHER_SYSTEMS) if kind < 0.42 else None)


def open_corpus(
    *,
    held_out: bool = False,
    voices: tuple[str, ...] | None = None,
    folder: Path = FOLDER,
    excluded: Excluded | None = None,
    mix: Mix | None = None,
) -> Corpus:
    """The corpus of this folder's files; values of the evaluation set are kept out of it."""
    shop = load_shop()
    excluded = Excluded.read() if excluded is None else excluded
    lines = load(shop, folder, voices)
    return Corpus(shop, lines, Pools.read(excluded), Noise.read(), Foreign.read(), held_out=held_out, mix=mix)


def conversations(corpus: Corpus, seed: int) -> Iterator[Conversation]:
    """Conversations without end, the same for the same seed."""
    rng = random.Random(seed)
    while True:
        yield corpus.conversation(rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10, help="conversations to print")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true", help="from the lines that are never trained on")
    args = parser.parse_args()
    for conversation, _ in zip(
        conversations(open_corpus(held_out=args.held_out), args.seed), range(args.count), strict=False
    ):
        for message in conversation.messages():
            print(f"{message['role']:>9}: {message['content']}")
        print()


if __name__ == "__main__":
    main()
