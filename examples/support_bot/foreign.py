"""Questions about somebody else's business: off topic, however much they sound like support.

Two sources beside the phrasing files: frames with long lists of nouns, and lines of the shop's own intents whose noun
is swapped ("where is my order" -> "where is my passport"), which teach that the noun decides, not the verb.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

from examples.support_bot import grammar

FOLDER = Path(__file__).parent / "corpus" / "lists"
_ORDER = re.compile(
    r"\b(my|the|this|that|an|our) (?:last |recent |new )?(?:order|parcel|package|delivery|shipment|purchase)\b",
    re.IGNORECASE,
)
_ACCOUNT = re.compile(r"\b(my|the|this|an|your) (account|password|profile|login)\b", re.IGNORECASE)
_CARD = re.compile(r"\b(gift card|gift voucher|gift cards|voucher|promo code|discount code|coupon)\b", re.IGNORECASE)
_ORDER_INTENTS = {
    "track_order",
    "cancel_order",
    "change_address",
    "not_arrived",
    "missing_item",
    "damaged_item",
    "return_item",
    "refund_status",
    "invoice",
    "wrong_item",
}
_ACCOUNT_INTENTS = {"reset_password", "change_details", "delete_account"}
_CARD_INTENTS = {"gift_card", "discount_code"}
_PRODUCT_INTENTS = {"product_info", "product_stock", "warranty"}


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """Frames and nouns of other people's business."""

    frames: tuple[grammar.Choice, ...]
    lists: dict[str, tuple[str, ...]]

    @classmethod
    def read(cls, folder: Path = FOLDER) -> Foreign:
        """Reads the lists of a folder."""
        import yaml

        def nouns(name: str) -> tuple[str, ...]:
            return tuple((folder / name).read_text(encoding="utf-8").strip().split("|"))

        body = yaml.safe_load((folder / "off_topic_slots.yaml").read_text(encoding="utf-8"))
        lists = {slot: tuple(text.split("|")) for slot, text in body.items()}
        lists |= {
            "foreign": nouns("foreign_things.txt"),
            "service": nouns("foreign_services.txt"),
            "foreignproduct": nouns("foreign_products.txt"),
        }
        frames = (folder / "off_topic.txt").read_text(encoding="utf-8").splitlines()
        return cls(frames=tuple(grammar.parse(line) for line in frames), lists=lists)

    def framed(self, rng: random.Random) -> str:
        """A frame with its nouns filled in."""
        text = grammar.expand(rng.choice(self.frames), rng)
        return grammar.SLOT.sub(lambda match: self._noun(match.group(1), rng), text)

    def swapped(self, intent: str, text: str, rng: random.Random) -> str | None:
        """The shop's own question, asked about something else; None where the text has no noun to swap."""
        if intent in _PRODUCT_INTENTS and "{product}" in text:
            noun = self._noun("foreignproduct", rng)
            text = re.sub(r"\b(the|my|a|an|your) my ", "my ", text.replace("{product}", noun))
            return text if "{" not in text else None
        if "{" in text or "larkfield" in text.lower():
            return None
        if intent in _ORDER_INTENTS:
            foreign = self._noun("foreign", rng)
            swapped, times = _ORDER.subn(lambda match: f"{match.group(1)} {foreign}", text)
        elif intent in _ACCOUNT_INTENTS:
            service = self._noun("service", rng)
            swapped, times = _ACCOUNT.subn(lambda match: f"my {service} {match.group(2)}", text)
        elif intent in _CARD_INTENTS:
            service = self._noun("service", rng)
            swapped, times = _CARD.subn(lambda match: f"{service} {match.group(1)}", text)
        else:
            return None
        return swapped if times else None

    def _noun(self, slot: str, rng: random.Random) -> str:
        if slot == "number":
            return str(rng.choice((rng.randrange(2, 100), rng.randrange(2, 3000))))
        if slot == "year":
            return str(rng.randrange(1900, 2026))
        return rng.choice(self.lists[slot])
