"""References: `NAME:LABEL`, `NAME@ALIAS`, `NAME@sha256:...`, and the full name that people write, `support-bot-v1.1.0`."""

import re

import msgspec

from penstock.core.digests import is_digest
from penstock.core.errors import BadRequest

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,94}[a-z0-9])?")
_FULL = re.compile(
    r"(?P<name>.+?)-(?P<label>v[0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z.-]+)?|[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}|run[0-9]+|experiment[0-9]+-run[0-9]+)"
)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A version as people name it; exactly one of `label`, `alias` and `digest` is set."""

    name: str
    label: str | None = None
    alias: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        """As it is written."""
        if self.label is not None:
            return f"{self.name}:{self.label}"
        return f"{self.name}@{self.alias if self.alias is not None else self.digest}"


def check_name(name: str, param: str = "name") -> str:
    """`name` itself.

    Raises:
        BadRequest: if it is not 1 to 96 of a-z, 0-9, dot, underscore, hyphen, with a letter or digit at both ends.
    """
    if NAME.fullmatch(name) is None:
        raise BadRequest(
            f"{name!r} is not a name: use 1 to 96 of a-z, 0-9, '.', '_' and '-', a letter or digit at both ends.",
            param=param,
        )
    return name


def parse_reference(text: str) -> Reference:
    """The reference written as `text`.

    Raises:
        BadRequest: if `text` is none.
    """
    name, at, rest = text.partition("@")
    if at:
        check_name(name, "reference")
        if rest.startswith("sha256:"):
            if not is_digest(rest):
                raise BadRequest(f"{rest!r} is not a digest: sha256: and 64 hexadecimal digits.", param="reference")
            return Reference(name=name, digest=rest)
        return Reference(name=name, alias=check_name(rest, "reference"))
    name, colon, label = text.partition(":")
    if colon:
        if _LABEL.fullmatch(label) is None:
            raise BadRequest(f"{label!r} is not a label, such as v1.2.0 or 2024-05-01.", param="reference")
        return Reference(name=check_name(name, "reference"), label=label)
    full = _FULL.fullmatch(text)
    if full is None:
        raise BadRequest(
            f"{text!r} names no version: write NAME:LABEL, NAME@ALIAS or NAME@sha256:...", param="reference"
        )
    return Reference(name=check_name(full["name"], "reference"), label=full["label"])
