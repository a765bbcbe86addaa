"""Model cards: Hugging Face's format, a YAML head between `---` lines and Markdown below (Mitchell et al. 2019 for what they hold)."""

from typing import Any

import msgspec
import yaml

from penstock.core.errors import BadRequest

MAX_CARD_BYTES = 1 << 20
REQUIRED_SECTIONS = ("intended use", "limits", "training data", "evaluation")
REQUIRED_FIELDS = ("license", "language")
_SAME_SECTION = {
    "limits": ("limitations", "limits", "known limits"),
    "evaluation": ("evaluation", "figures", "results"),
}


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A card taken apart."""

    head: dict[str, Any]
    body: str
    sections: tuple[str, ...]  # headings in lower case


def parse_card(text: str) -> Card:
    """Takes a card apart; one without a head has an empty one.

    Raises:
        BadRequest: if it is over 1 MiB or its head is not a YAML mapping.
    """
    if len(text.encode()) > MAX_CARD_BYTES:
        raise BadRequest(f"A card has at most {MAX_CARD_BYTES} bytes.", param="card")
    head: dict[str, Any] = {}
    body = text
    if text.startswith("---\n"):
        raw, found, rest = text[4:].partition("\n---")
        if not found:
            raise BadRequest("The card's YAML head is not closed by a line of three hyphens.", param="card")
        try:
            loaded = yaml.safe_load(raw)
        except yaml.YAMLError as error:
            raise BadRequest(f"The card's head is not YAML: {str(error).splitlines()[0]}.", param="card") from None
        if loaded is not None and not isinstance(loaded, dict):
            raise BadRequest("The card's head must hold fields, such as `license: apache-2.0`.", param="card")
        head, body = loaded or {}, rest.partition("\n")[2]
    fenced = False
    sections: list[str] = []
    for line in body.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif line.startswith("#") and not fenced:
            sections.append(line.lstrip("#").strip().lower())
    return Card(head=head, body=body, sections=tuple(sections))


def missing(card: Card) -> tuple[str, ...]:
    """What production asks of a card and this one lacks, in words."""
    lacking = [f"the field `{name}`" for name in REQUIRED_FIELDS if not card.head.get(name)]
    for section in REQUIRED_SECTIONS:
        wanted = _SAME_SECTION.get(section, (section,))
        if not any(any(word in heading for word in wanted) for heading in card.sections):
            lacking.append(f"the section `{section}`")
    return tuple(lacking)
