"""Model cards: Markdown with YAML front matter as the Hugging Face hub reads it, and what a complete one says."""

import re
from typing import Any

import msgspec
import yaml

from penstock.core.errors import BadRequest

_FRONT = re.compile(r"\A---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_MAX_BYTES = 1 << 20
# A heading that says it -> what it is about.
SECTIONS = {
    "intended use": ("intended use", "intended uses", "uses"),
    "limitations": ("limitations", "known limitations", "bias, risks, and limitations", "limits"),
    "training data": ("training data", "training", "data"),
    "evaluation": ("evaluation", "metrics", "results", "quality"),
}
FIELDS = ("license", "language")


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A card: its front matter and the Markdown after it."""

    metadata: dict[str, Any]
    body: str


def parse_card(text: str) -> Card:
    """The card written as `text`; without front matter its metadata is empty.

    Raises:
        BadRequest: if it is over 1 MiB or its front matter is not a YAML mapping.
    """
    if len(text) > _MAX_BYTES:
        raise BadRequest("A card has at most 1 MiB.", param="card")
    match = _FRONT.match(text)
    if match is None:
        return Card(metadata={}, body=text)
    try:
        metadata = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadRequest(
            f"The card's front matter is not YAML: {getattr(error, 'problem', error)}.", param="card"
        ) from None
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(name, str) for name in metadata):
        raise BadRequest("The card's front matter must be a YAML mapping.", param="card")
    return Card(metadata=metadata, body=text[match.end() :])


def missing_from(card: Card) -> tuple[str, ...]:
    """What a complete card would say and this one does not: fields of the front matter, and sections with some text."""
    missing = [f"the field {field!r}" for field in FIELDS if not card.metadata.get(field)]
    sections = _sections(card.body)
    for wanted, headings in SECTIONS.items():
        if not any(sections.get(heading) for heading in headings):
            missing.append(f"the section {wanted!r}")
    return tuple(missing)


def _sections(body: str) -> dict[str, str]:
    found: dict[str, str] = {}
    heading = ""
    for line in body.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("#").strip().lower()
            found.setdefault(heading, "")
        elif heading:
            found[heading] += line.strip()
    return found
