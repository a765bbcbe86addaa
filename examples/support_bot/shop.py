"""The shop as a value: intents, answers, keys, read from shop.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ASK_ORDER = "ask_order"
OFF_TOPIC = "off_topic"


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What somebody wants, and what the assistant says to it."""

    name: str
    slot: str | None  # "order", "product" or "name": what the answer copies
    slot_optional: bool
    answers: tuple[str, ...]
    answers_without: tuple[str, ...]  # said where an optional slot is not filled
    key: tuple[str, ...]  # lower-case pieces, any of which marks this intent's answer

    def answer(self, variant: int, slots: dict[str, str]) -> str:
        """The answer's text; `variant` counts from 0 and wraps."""
        known = self.slot is None or self.slot in slots
        texts = self.answers if known else self.answers_without
        text = texts[variant % len(texts)]
        return text.replace("{" + self.slot + "}", slots[self.slot]) if self.slot and known else text


@dataclass(frozen=True, kw_only=True)
class Shop:
    """All intents by name, with `ask_order` and `off_topic` among them."""

    name: str
    system: str
    intents: dict[str, Intent]

    @property
    def in_scope(self) -> tuple[str, ...]:
        """The intents that people have."""
        return tuple(name for name in self.intents if name not in (ASK_ORDER, OFF_TOPIC))

    @property
    def order_intents(self) -> tuple[str, ...]:
        """The intents whose answer copies an order number."""
        return tuple(name for name in self.in_scope if self.intents[name].slot == "order")


def load_shop(path: Path = HERE / "shop.yaml") -> Shop:
    """Reads shop.yaml."""
    import yaml

    data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    intents = {name: _intent(name, body) for name, body in data["intents"].items()}
    for name in (ASK_ORDER, OFF_TOPIC):
        intents[name] = _intent(name, data[name])
    return Shop(name=data["shop"], system=data["system"], intents=intents)


def _intent(name: str, body: dict[str, Any]) -> Intent:
    slot = next(iter(body.get("slots", [])), None)
    return Intent(
        name=name,
        slot=slot.rstrip("?") if slot else None,
        slot_optional=slot is not None and slot.endswith("?"),
        answers=tuple(body["answers"]),
        answers_without=tuple(body.get("answers_without", ())),
        key=tuple(piece.lower() for piece in body["key"]),
    )
