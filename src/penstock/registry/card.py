"""Model cards: Markdown with YAML front matter as the Hugging Face hub reads it, and what a complete one says."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import yaml

from penstock.core.errors import BadRequest
from penstock.core.plain_yaml import PlainLoader

_FRONT = re.compile(r"\A---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_MAX_BYTES = 1 << 20
For = Literal["any", "production"]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a complete card says: a field of the front matter, or a section under one of `headings` with some text."""

    what: str
    wanted_for: For
    field: str = ""
    headings: tuple[str, ...] = ()


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """What a card does not say, and the command that supplies it."""

    what: str
    wanted_for: For
    command: str


WANTED: tuple[Wanted, ...] = (
    Wanted(what="the field 'license'", wanted_for="any", field="license"),
    Wanted(what="the field 'language'", wanted_for="any", field="language"),
    Wanted(
        what="the section 'intended use'",
        wanted_for="any",
        headings=("intended use", "intended uses", "uses", "direct use"),
    ),
    Wanted(
        what="the section 'limitations'",
        wanted_for="any",
        headings=("limitations", "known limitations", "known limits", "bias, risks, and limitations", "limits"),
    ),
    Wanted(
        what="the section 'training data'",
        wanted_for="any",
        headings=("training data", "training", "data", "training details"),
    ),
    Wanted(
        what="the section 'evaluation'",
        wanted_for="any",
        headings=("evaluation", "metrics", "results", "quality", "figures"),
    ),
    Wanted(what="the field 'pipeline_tag'", wanted_for="production", field="pipeline_tag"),
    Wanted(what="the field 'model-index' (measured results)", wanted_for="production", field="model-index"),
    Wanted(what="the field 'datasets'", wanted_for="production", field="datasets"),
    Wanted(
        what="the section 'out of scope'",
        wanted_for="production",
        headings=("out of scope", "out-of-scope use", "not intended for", "misuse"),
    ),
    Wanted(
        what="the section 'contact'",
        wanted_for="production",
        headings=("contact", "model card contact", "maintainers", "authors"),
    ),
)


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A card: its front matter and the Markdown after it."""

    metadata: dict[str, Any]
    body: str


def parse_card(text: str) -> Card:
    """The card written as `text`; without front matter its metadata is empty.

    Raises:
        BadRequest: if it is over 1 MiB, or its front matter is not a YAML mapping, or one with aliases.
    """
    if len(text) > _MAX_BYTES:
        raise BadRequest("A card has at most 1 MiB.", param="card")
    match = _FRONT.match(text)
    if match is None:
        return Card(metadata={}, body=text)
    try:
        metadata = yaml.load(match[1], Loader=PlainLoader)  # noqa: S506 - a safe one, without aliases
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
    """What any complete card would say and this one does not."""
    return tuple(one.what for one in lacking(card, "NAME:LABEL") if one.wanted_for == "any")


def lacking(card: Card, reference: str) -> tuple[Missing, ...]:
    """Everything that the card of `reference` does not say, first what any card says, then what production asks for beside it."""
    sections = _sections(card.body)
    found = []
    for wanted in WANTED:
        said = _said(card.metadata, wanted.field) if wanted.field else any(map(sections.get, wanted.headings))
        if not said:
            found.append(Missing(what=wanted.what, wanted_for=wanted.wanted_for, command=_command(wanted, reference)))
    return tuple(found)


def _said(metadata: Mapping[str, Any], field: str) -> bool:
    if field != "model-index":
        return bool(metadata.get(field))
    entries = metadata.get(field)
    if not isinstance(entries, list):
        return False
    return any(
        isinstance(result, dict) and result.get("metrics")
        for entry in entries
        if isinstance(entry, dict)
        for result in entry.get("results") or ()
    )


def _command(wanted: Wanted, reference: str) -> str:
    if wanted.field in {"model-index", "datasets"}:
        return (
            f"penstock models card {reference} --template > card.md && penstock models card {reference} --edit card.md"
        )
    return f"penstock models card {reference} --edit card.md"


def _sections(body: str) -> dict[str, str]:
    found: dict[str, str] = {}
    heading = ""
    fenced = False
    for line in body.splitlines():
        fenced ^= line.lstrip().startswith("```")
        if line.startswith("#") and not fenced:
            heading = line.lstrip("#").strip().rstrip(":").lower()
            found.setdefault(heading, "")
        elif heading and not (line.strip().startswith("<!--") and line.strip().endswith("-->")):
            found[heading] += line.strip()
    return found
