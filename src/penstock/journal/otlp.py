"""Spans in OpenTelemetry's protocol (opentelemetry.io/docs/specs/otlp), over HTTP."""

from collections.abc import Sequence
from functools import lru_cache

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as pb

import penstock
from penstock.core.errors import UpstreamFailed
from penstock.core.exchange import Exchange
from penstock.journal.posting import Poster
from penstock.journal.spans import Attributes, Event, Span, Value, spans_of

SCOPE = "penstock.gateway"
_KINDS = {
    "server": pb.Span.SpanKind.SPAN_KIND_SERVER,
    "client": pb.Span.SpanKind.SPAN_KIND_CLIENT,
    "internal": pb.Span.SpanKind.SPAN_KIND_INTERNAL,
}
_LOCAL = pb.SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = _LOCAL | pb.SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def resource_of(worker: str) -> Attributes:
    """Who made the spans."""
    return {
        "service.name": "penstock",
        "service.instance.id": worker,
        "service.version": penstock.__version__,
    }


def encode(worker: str, exchanges: Sequence[Exchange]) -> ExportTraceServiceRequest:
    """The spans of `exchanges`, which `worker` served."""
    return ExportTraceServiceRequest(
        resource_spans=[
            pb.ResourceSpans(
                resource=Resource(attributes=_attributes(resource_of(worker))),
                scope_spans=[
                    pb.ScopeSpans(
                        scope=InstrumentationScope(name=SCOPE, version=penstock.__version__),
                        spans=[_span(span) for exchange in exchanges for span in spans_of(exchange)],
                    )
                ],
            )
        ]
    )


class OtlpHttp:
    """A collector's `/v1/traces`."""

    name = "otlp"

    def __init__(self, url: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """A collector at `url`; `headers` are for those that want a key.

        Raises:
            BadRequest: if `url` is none.
        """
        self._poster = Poster("The collector", url, headers)

    async def offer(self, worker: str, exchanges: Sequence[Exchange]) -> str:
        """POST them.

        The protocol forbids to repeat what was answered with 400, so that is for good; but a wrong key or path does not say that the
        spans are bad, and holds them.

        Raises:
            PenstockError: if they have to be offered again.
        """
        body = encode(worker, exchanges).SerializeToString()
        answer = await self._poster.ask("POST", "/v1/traces", body, "application/x-protobuf")
        if answer.status in {400, 413}:
            return self._poster.complaint(answer)
        if not 200 <= answer.status < 300:
            raise self._poster.failure(answer)
        try:
            response = ExportTraceServiceResponse.FromString(answer.body)
        except DecodeError:
            raise UpstreamFailed(self._poster.complaint(answer)) from None
        return refusal(response)

    async def close(self) -> None:
        """Close the connections."""
        await self._poster.close()


def refusal(response: ExportTraceServiceResponse) -> str:
    """Why a collector did not take some of the spans, or nothing."""
    partial = response.partial_success
    if not partial.rejected_spans:
        return ""
    return f"The collector rejected {partial.rejected_spans} spans: {partial.error_message}"


def _span(span: Span) -> pb.Span:
    return pb.Span(
        trace_id=span.trace,
        span_id=span.id,
        parent_span_id=span.parent,
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_attributes(span.attributes),
        events=[_event(event) for event in span.events],
        status=pb.Status(code=pb.Status.StatusCode.STATUS_CODE_ERROR, message=span.problem)
        if span.failed
        else pb.Status(),
        flags=_REMOTE if span.remote else _LOCAL,
    )


def _event(event: Event) -> pb.Span.Event:
    return pb.Span.Event(name=event.name, time_unix_nano=event.at_ns, attributes=_attributes(event.attributes))


def _attributes(attributes: Attributes) -> list[KeyValue]:
    return [_pair(key, value) for key, value in attributes.items()]


@lru_cache(1024, typed=True)  # nearly all of a request's attributes are those of the one before
def _pair(key: str, value: Value) -> KeyValue:
    return KeyValue(key=key, value=_value(value))


def _value(value: Value) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=one) for one in value]))
