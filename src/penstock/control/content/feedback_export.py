"""`POST /api/v1/feedback/export`: ratings, corrections and preferences as lines to train on, with consent, masking and lineage."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse
from pydantic import Field
from sqlalchemy import Select, select

from penstock.access.principals import Principal
from penstock.control.auth import ControlPart, needs_in_tenant
from penstock.control.content.feedback_pairs import Mask, Pairs, Wish
from penstock.control.context import Control
from penstock.control.specs.resources import Name, Spec
from penstock.core.errors import BadRequest
from penstock.core.exchange import Exchange, Observation
from penstock.core.snapshot import Detectable, Policy
from penstock.guard.masking import Masker
from penstock.journal.content import Said
from penstock.journal.keystore import Keystore
from penstock.journal.reading import open_content
from penstock.journal.telling import with_texts
from penstock.store.schema_experiments import exchanges, observations

_PAGE = 500
_KINDS = ("feedback", "preference")


class ExportBody(Spec):
    """Which feedback is exported, and how."""

    start: float | None = Field(
        default=None, ge=0, le=1e11, alias="from", description="Unix seconds: said from then on."
    )
    end: float | None = Field(default=None, ge=0, le=1e11, alias="to", description="Unix seconds: said before.")
    tenant: Name | None = None
    route: Name | None = None
    version: str | None = Field(
        default=None, max_length=255, description="NAME:LABEL, or NAME for all of its versions."
    )
    good_at: float = Field(default=1.0, description="Ratings from here on are good.")
    bad_at: float = Field(default=-1.0, description="Ratings up to here are bad.")
    joined: bool = Field(default=True, description="Also pair good and bad answers to the very same question.")
    mask: list[Detectable] | None = Field(
        default=None, description="What is masked; left out: as policies do; []: nothing."
    )
    without_consent: bool = Field(default=False, description="Also what nobody consented to; needs a reason.")
    reason: str = Field(default="", max_length=1000, description="For the audit trail.")


class _Found(msgspec.Struct, frozen=True):
    exchange: Exchange
    told: list[Observation]


class Exporter:
    """Reads feedback and the content that it is about, over one keystore."""

    def __init__(self, control: Control, keys: Keystore) -> None:
        self._control = control
        self._keys = keys

    async def export(self, who: Principal, wish: ExportBody) -> AsyncGenerator[bytes, None]:
        """The lines, after the audit trail has an event of them; the last line counts what came and what was left out.

        Raises:
            Forbidden: if the caller belongs to another tenant.
            BadRequest: if what nobody consented to, or nothing masked, is wanted without a reason.
            Unavailable: if the event cannot be written.
        """
        tenant = who.held_to(wish.tenant)
        if (wish.without_consent or wish.mask == []) and not wish.reason:
            raise BadRequest(
                "Say why, for the audit trail: people have not consented to it, or it is not masked.",
                param="reason",
                code="reason_needed",
            )
        told = wish.model_dump(mode="json", by_alias=True, exclude_none=True) | {"tenant": tenant}
        await self._control.note(who, "feedback.export", tenant or "*", of_tenant=tenant, **told)
        return self._lines(who, wish, tenant)

    async def _lines(self, who: Principal, wish: ExportBody, tenant: str | None) -> AsyncGenerator[bytes, None]:
        kinds = tuple(wish.mask) if wish.mask is not None else Policy(name="").capture_mask
        mask: Mask = Masker(kinds).mask if kinds else lambda texts: texts
        pairs = Pairs(
            Wish(good_at=wish.good_at, bad_at=wish.bad_at, consented=not wish.without_consent, joined=wish.joined),
            mask,
        )
        counts: Counter[str] = Counter()
        digest = hashlib.sha256()
        after = 0
        while True:
            found, last = await self._page(wish, tenant, after)
            if last is None:
                break
            after = last
            for line in await asyncio.to_thread(self._made, pairs, found, counts):
                counts[line["kind"]] += 1
                encoded = msgspec.json.encode(line | {"masked": bool(kinds)}) + b"\n"
                digest.update(encoded)
                yield encoded
        summary = {
            "kind": "summary",
            "supervised": counts["supervised"],
            "preferences": counts["preference"],
            "observations": counts["observations"],
            "left_out": {
                "no_consent": counts["no_consent"],
                "no_content": counts["no_content"],
                "says_nothing": counts["says_nothing"],
            },
            "digest": f"sha256:{digest.hexdigest()}",
            "masked": list(kinds),
        }
        await self._control.note(
            who,
            "feedback.exported",
            tenant or "*",
            of_tenant=tenant,
            **{k: v for k, v in summary.items() if k != "kind"},
        )
        yield msgspec.json.encode(summary) + b"\n"

    async def _page(self, wish: ExportBody, tenant: str | None, after: int) -> tuple[list[_Found], int | None]:
        """The next exchanges with all of the page that was said of each, and up to where the page goes; None: there is no more."""
        async with self._control.database.read() as connection:
            rows = (await connection.execute(_statement(wish, tenant, after))).all()
        found: dict[str, _Found] = {}
        for row in rows:
            told = msgspec.msgpack.decode(row.record, type=Observation)
            if told.kind not in _KINDS or told.evaluator:  # what programs found says nothing that people wanted
                continue
            if row.id not in found:
                found[row.id] = _Found(msgspec.msgpack.decode(row.exchange, type=Exchange), [])
            found[row.id].told.append(told)
        return list(found.values()), rows[-1].sequence if rows else None

    def _made(self, pairs: Pairs, found: list[_Found], counts: Counter[str]) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        for one in found:
            counts["observations"] += len(one.told)
            consented = pairs.wanted(one.told)
            counts["no_consent"] += len(one.told) - len(consented)
            if not consented:
                continue
            said = self._said(one.exchange)
            if said is None:
                counts["no_content"] += len(consented)
                continue
            told = [with_texts(self._keys, each) for each in consented]
            readable = [each for each in told if each.corrected or not each.corrected_chars]
            counts["no_content"] += len(told) - len(readable)
            made = list(pairs.lines(one.exchange, said, readable))
            if not made:
                counts["says_nothing"] += len(readable)
            lines += made
        return lines

    def _said(self, exchange: Exchange) -> Said | None:
        """What was said, if it is whole and its key is there: half a conversation teaches what nobody said."""
        if exchange.content is None or exchange.content.cut:
            return None
        opened = open_content(self._keys, exchange)
        if opened.state != "readable":
            return None
        return Said(
            messages=tuple((one["role"], one["text"]) for one in opened.told["messages"]),
            replies=tuple((one["index"], one["field"], one["text"]) for one in opened.told["replies"]),
        )


def _statement(wish: ExportBody, tenant: str | None, after: int) -> Select[Any]:
    statement = (
        select(observations.c.sequence, observations.c.record, exchanges.c.id, exchanges.c.record.label("exchange"))
        .join_from(
            observations,
            exchanges,
            (observations.c.request == exchanges.c.id) & (observations.c.tenant == exchanges.c.tenant),
        )
        .where(observations.c.state == "attributed", observations.c.sequence > after)
        .order_by(observations.c.sequence)
        .limit(_PAGE)
    )
    for column, value in ((exchanges.c.tenant, tenant), (exchanges.c.route, wish.route)):
        if value is not None:
            statement = statement.where(column == value)
    if wish.version is not None:
        whole = ":" in wish.version
        named = exchanges.c.version == wish.version
        statement = statement.where(
            named if whole else exchanges.c.version.startswith(f"{wish.version}:", autoescape=True)
        )
    if wish.start is not None:
        statement = statement.where(observations.c.received >= wish.start)
    if wish.end is not None:
        statement = statement.where(observations.c.received < wish.end)
    return statement


def feedback_router(exporter: Exporter) -> APIRouter:
    """The route, to stand below /api/v1."""
    router = APIRouter(tags=["content"])

    @router.post("/feedback/export", response_class=StreamingResponse)
    async def export(
        _control: ControlPart, who: Annotated[Principal, Depends(needs_in_tenant("content:read"))], body: ExportBody
    ) -> StreamingResponse:
        """JSON lines: supervised examples and preferences, each with consent, masking and lineage; the last line counts them.

        Only what people consented to, unless the body says otherwise, with a reason. The audit trail has an event before anything is told.
        """
        return StreamingResponse(await exporter.export(who, body), media_type="application/x-ndjson")

    return router
