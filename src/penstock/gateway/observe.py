"""Feedback, events, reports and preferences: checked, journalled, answered; whose they may be about is ingest's to check."""

from __future__ import annotations

import math
from collections import OrderedDict
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from penstock.core.errors import BadRequest
from penstock.core.exchange import Observation
from penstock.gateway.index import Caller
from penstock.guard.masking import Masker
from penstock.journal.subjects import hash_subject
from penstock.wire.decoding import bad_body

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
About = Annotated[str, msgspec.Meta(pattern=r"^[a-z]{1,16}_[0-9a-z]{26}$")]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text = Annotated[str, msgspec.Meta(max_length=65536)]
_KEPT = 65536  # answers remembered, so that a repeat is answered as the first time


class Feedback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/feedback`."""

    id: Id
    request_id: About
    rating: float | None = None
    success: bool | None = None
    text: Text = ""
    corrected: Text = ""
    consent: bool = False


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/events`: about a request, or about a user."""

    id: Id
    name: Word
    request_id: About | None = None
    user: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None
    value: float | None = None
    at: datetime | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/reports`."""

    id: Id
    request_id: About
    reason: Word
    text: Text = ""


class Preference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/preferences`: which of the interleaved choices was better."""

    id: Id
    request_id: About
    chosen: Annotated[int, msgspec.Meta(ge=0, le=127)] | Literal["tie"]
    consent: bool = False


Told = Feedback | Event | Report | Preference
Kind = Literal["feedback", "event", "report", "preference"]
_DECODERS: dict[Kind, msgspec.json.Decoder[Told]] = {
    "feedback": msgspec.json.Decoder(Feedback),
    "event": msgspec.json.Decoder(Event),
    "report": msgspec.json.Decoder(Report),
    "preference": msgspec.json.Decoder(Preference),
}


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    id: str
    object: str
    received: float
    request_id: str | None = None


def decode_observation(kind: Kind, body: bytes) -> Told:
    """What `body` tells.

    Raises:
        BadRequest: if it is malformed or holds an unknown field; `param` names it.
    """
    try:
        told = _DECODERS[kind].decode(body)
    except (ValueError, RecursionError) as error:
        raise _named(bad_body(body, error)) from None
    if isinstance(told, Event):
        if told.request_id is None and told.user is None:
            raise BadRequest("An event is about a `request_id` or a `user`: give one.", param="request_id")
        if told.at is not None and told.at.tzinfo is None:
            raise BadRequest("The field `at` needs a time zone, as in 2024-05-01T12:00:00Z.", param="at")
        _check_number(told.value, "value")
    elif isinstance(told, Feedback):
        if told.rating is None and told.success is None and not told.text and not told.corrected:
            raise BadRequest("Feedback needs a rating, success, text or corrected.", param="rating")
        _check_number(told.rating, "rating")
    return told


def _named(error: BadRequest) -> BadRequest:
    marker = "unknown field `"
    if marker in error.message:
        field = error.message.split(marker)[1].split("`")[0]
        return BadRequest(f"The field `{field}` is not known here.", param=field, code="unknown_field")
    return error


def _check_number(value: float | None, name: str) -> None:
    if value is not None and not (math.isfinite(value) and abs(value) <= 1e12):
        raise BadRequest(f"The field `{name}` is out of range.", param=name)


def observation(
    kind: Kind, told: Told, caller: Caller, now: float, subject_key: bytes, masker: Masker | None
) -> Observation:
    """The record of what was told, personal data in its texts masked by `masker`; None: they stay as they are."""
    at = now
    name, user, text, corrected = "", "", "", ""
    rating: float | None = None
    success: bool | None = None
    value: float | None = None
    consent = False
    if isinstance(told, Feedback):
        rating, success, text, corrected, consent = told.rating, told.success, told.text, told.corrected, told.consent
    elif isinstance(told, Event):
        name, value = told.name, told.value
        user = hash_subject(subject_key, told.user) if told.user else ""
        at = told.at.timestamp() if told.at is not None else now
    elif isinstance(told, Report):
        name, text = told.reason, told.text
    elif told.chosen == "tie":
        name, consent = "tie", told.consent
    else:
        name, value, consent = "chosen", float(told.chosen), told.consent
    if masker is not None and (text or corrected):
        text, corrected = masker.mask([text, corrected])
    return Observation(
        id=told.id,
        at=at,
        received=now,
        kind=kind,
        tenant=caller.tenant.name,
        key=caller.key.id,
        request=told.request_id or "",
        user=user,
        name=name,
        rating=rating,
        success=success,
        value=value,
        text=text,
        corrected=corrected,
        consent=consent,
    )


class Answered:
    """The answers given last, by tenant, kind and id."""

    def __init__(self, size: int = _KEPT) -> None:
        self._size = size
        self._answers: OrderedDict[tuple[str, str, str], bytes] = OrderedDict()

    def get(self, tenant: str, kind: str, name: str) -> bytes | None:
        """The answer to the same observation, if it is remembered."""
        return self._answers.get((tenant, kind, name))

    def put(self, tenant: str, kind: str, name: str, answer: bytes) -> None:
        """Remembers an answer; the oldest makes room."""
        self._answers[tenant, kind, name] = answer
        if len(self._answers) > self._size:
            self._answers.popitem(last=False)

    def forget(self, tenant: str, kind: str, name: str) -> None:
        """As if it had never been told."""
        self._answers.pop((tenant, kind, name), None)


def accepted(told: Told, kind: str, received: float) -> bytes:
    """The answer to an observation that was journalled."""
    return msgspec.json.encode(Accepted(id=told.id, object=kind, received=received, request_id=told.request_id))
