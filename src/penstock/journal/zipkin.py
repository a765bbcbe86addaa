"""Spans as Zipkin's JSON, version 2 (zipkin.io/zipkin-api).

What Zipkin has no field for becomes a tag as OpenTelemetry maps it (opentelemetry.io/docs/specs/otel/trace/sdk_exporters/zipkin).
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from penstock.core.exchange import Exchange
from penstock.journal.posting import Poster
from penstock.journal.spans import Event, Span, Value, spans_of


class Zipkin:
    """A server's `/api/v2/spans`."""

    name = "zipkin"

    def __init__(self, url: str) -> None:
        """A server at `url`.

        Raises:
            BadRequest: if `url` is none.
        """
        self._poster = Poster("Zipkin", url)

    async def offer(self, worker: str, exchanges: Sequence[Exchange]) -> str:
        """POST them.

        Raises:
            PenstockError: if they have to be offered again.
        """
        answer = await self._poster.ask("POST", "/api/v2/spans", encode(worker, exchanges))
        if answer.status in {400, 413}:
            return self._poster.complaint(answer)
        if not 200 <= answer.status < 300:
            raise self._poster.failure(answer)
        return ""

    async def close(self) -> None:
        """Close the connections."""
        await self._poster.close()


def encode(worker: str, exchanges: Sequence[Exchange]) -> bytes:
    """A list of spans."""
    return msgspec.json.encode([_span(worker, span) for exchange in exchanges for span in spans_of(exchange)])


def _span(worker: str, span: Span) -> dict[str, Any]:
    begin = span.start_ns // 1000
    tags = {key: _text(value) for key, value in span.attributes.items()}
    tags["service.instance.id"] = worker
    if span.failed:
        tags["otel.status_code"] = "ERROR"
        tags["error"] = span.problem
    made: dict[str, Any] = {
        "traceId": span.trace.hex(),
        "id": span.id.hex(),
        "name": span.name.lower(),
        "timestamp": begin,
        "duration": max(1, span.end_ns // 1000 - begin),
        "localEndpoint": {"serviceName": "penstock"},
        "tags": tags,
    }
    if span.parent:
        made["parentId"] = span.parent.hex()
    if span.kind != "internal":
        made["kind"] = span.kind.upper()
    if span.events:
        made["annotations"] = [_annotation(event) for event in span.events]
    return made


def _annotation(event: Event) -> dict[str, Any]:
    value = event.name
    if event.attributes:
        value = msgspec.json.encode({event.name: event.attributes}).decode()
    return {"timestamp": event.at_ns // 1000, "value": value}


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)
